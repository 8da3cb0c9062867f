"""Tables, figures and a page over finished cells: at the end of a sweep, and by the command `dfkd-report`.

May be imported by dfkd.sweeps and later rooms.
"""

import hashlib
from pathlib import Path


def report_of_sweep(sweep: Path, root: Path) -> str:
    """Write the report of a sweep that has ended, in all formats.

    Args:
        sweep: the list of the sweep, outputs/sweeps/*.jsonl.
        root: parent of the report's folder, whose name is a hash of its cells.

    Returns:
        the text to print.
    """
    from dfkd.report.content import Question, answer
    from dfkd.report.output import FORMATS, save
    from dfkd.report.runs import find
    from dfkd.report.text import markdown

    report = answer(find([sweep]), Question())
    names = sorted(run.name for run in report.done)
    files = save(report, root / short_name(*names), list(FORMATS))
    pictured = (run.folder for run in report.done if (run.folder / "samples_robust.png").exists())
    pictures = next(pictured, report.done[-1].folder if report.done else root.parent / "runs" / "*")
    if pictures.is_absolute() and pictures.is_relative_to(Path.cwd()):  # the other paths are relative, too
        pictures = pictures.relative_to(Path.cwd())
    return f"\n{markdown(report)}\n\nopen  {files['html']}\n      {pictures}/*.png\ntable {files['md']}"


def short_name(*words: str) -> str:
    """Return a hash of some words, eight hexadecimal digits, as the name of a report's folder."""
    return hashlib.sha256("\n".join(words).encode("utf-8", "replace")).hexdigest()[:8]
