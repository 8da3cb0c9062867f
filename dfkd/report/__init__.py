"""Tables, figures and a page over finished cells: at the end of a sweep, and by the command `dfkd-report`."""

import hashlib
from pathlib import Path


def report_of_sweep(sweep: Path, root: Path) -> str:
    """Write all that can be written about a sweep that has ended.

    Args:
        sweep: its list, outputs/sweeps/*.jsonl.
        root: the report goes to a folder below, named by its cells.

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
    if pictures.is_absolute() and pictures.is_relative_to(Path.cwd()):  # as the other paths are
        pictures = pictures.relative_to(Path.cwd())
    return f"\n{markdown(report)}\n\nopen  {files['html']}\n      {pictures}/*.png\ntable {files['md']}"


def short_name(*words: str) -> str:
    """Eight hexadecimal digits of some words: the name of a report's folder."""
    return hashlib.sha256("\n".join(words).encode("utf-8", "replace")).hexdigest()[:8]
