"""Writes the files of a report."""

from pathlib import Path

from dfkd.report.content import Report
from dfkd.report.text import latex, markdown, table_csv
from dfkd.store.files import write_atomic

FORMATS = {"md": "table.md", "csv": "table.csv", "latex": "table.tex", "html": "report.html"}


def save(report: Report, folder: Path, formats: list[str]) -> dict[str, Path]:
    """Write a report.

    Args:
        folder: the folder; created if it does not exist.
        formats: keys of FORMATS; 'html' also writes the main figure as figure.png.

    Returns:
        {format: file}.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / FORMATS[name] for name in formats}
    for name, file in files.items():
        if name == "html":
            from dfkd.report.figures import as_png
            from dfkd.report.page import page

            text = page(report, folder)
            picture = as_png(report)
            if picture:
                (folder / "figure.png").write_bytes(picture)
        else:
            text = {"md": lambda r: markdown(r) + "\n", "csv": table_csv, "latex": latex}[name](report)
        write_atomic(file, text)
    return files
