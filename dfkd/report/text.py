"""A report as text: Markdown, CSV, LaTeX."""

import csv
import io
from collections.abc import Iterable, Sequence

from dfkd.config.lookup import one_line
from dfkd.config.paper import published
from dfkd.report.content import Report
from dfkd.report.tables import Number, Table


def markdown(report: Report) -> str:
    """Return the tables, notes and warnings as Markdown, with aligned columns for reading in a terminal."""
    parts = [grid(table) for table in report.tables]
    warnings = [f"WARNING: {one_line(text)}{_such(names)}" for text, names in report.warnings.items()]
    parts.append("\n".join([*report.notes, *warnings]))
    return "\n\n".join(parts)


def _such(names: list[str]) -> str:
    return f" (such in {len(names)} cells)" if len(names) > 1 else ""


def grid(table: Table) -> str:
    """Format a table of a report as Markdown with aligned columns, under its title."""
    title = [one_line(table.title), ""] if table.title else []
    return "\n".join([*title, markdown_table(table.head, table.lines, aligned=True)])


def markdown_table(head: Sequence[object], lines: Iterable[Sequence[object]], aligned: bool = False) -> str:
    """Format a table as Markdown.

    Args:
        head: the entries of the first line; every other line has as many.
        aligned: whether to fill up the columns with spaces, for reading in a terminal.
    """
    rows = [[one_line(entry).replace("|", "\\|") for entry in line] for line in (head, *lines)]
    widths = [max(map(len, column)) if aligned else 0 for column in zip(*rows, strict=True)]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    ruler = "|" + "|".join("-" * max(w + 2, 3) for w in widths) + "|"
    return "\n".join([text[0], ruler, *text[1:]])


def unfinished(report: Report) -> str:
    """List the unfinished cells with the reasons and the commands that repeat them."""
    lines = []
    for run in report.unfinished:
        lines.append(f"{run.status.upper()}: {one_line(run.name)}: {one_line(run.reason)}")
        if run.command and run.status != "running":
            lines.append(f"  retry: {run.command}")
    return "\n".join(lines)


def table_csv(report: Report) -> str:
    """Return CSV with one line per group, also for a pivot table.

    Columns are mean, std and n of every measure in full precision, then published numbers and the differences of ours
    to them. Missing values are empty.
    """
    groups = [group for group in report.groups if group.done]
    keys = list(dict.fromkeys(key for group in groups for key in (*group.label, *group.column)))
    papers = [m for m in report.measures if any(published(group.done, m.shipped) for group in groups)]
    names = {m: m.name.replace(" ", "_") for m in report.measures}
    head = [*keys, "student", "seeds", *(f"{name}_{part}" for name in names.values() for part in ("mean", "std", "n"))]
    rows = [head + [f"{names[m]}_{part}" for m in papers for part in ("paper", "minus_paper")]]
    for group in groups:
        label = group.label | group.column
        row = [label.get(key, "") for key in keys] + [report.student, " ".join(group.seeds)]
        for m in report.measures:
            number = m.over(group)
            row += [number.mean, number.std, len(number.values)]
        for m in papers:
            paper, mean = published(group.done, m.shipped), m.over(group).mean
            row += [paper and paper.value, None if paper is None or mean is None else mean - paper.value]
        rows.append(row)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(map(_no_formula, row) for row in rows)
    return out.getvalue()


def _no_formula(entry: object) -> object:
    """Put an apostrophe before text that a spreadsheet would execute as a formula. Numbers, also negative numbers as
    text, are not changed."""
    if not isinstance(entry, str) or not entry.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r")):
        return entry
    try:
        float(entry)
        return entry
    except ValueError:
        return f"'{entry}"


# Replacements of characters with a special meaning in LaTeX.
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "[": "{[}",  # after a line break \\, LaTeX would read [ and * as its arguments
    "*": "{*}",
} | {sign: "\\" + sign for sign in "#$%&_{}"}


def latex(report: Report) -> str:
    """Return the tables as LaTeX with booktabs; all text is escaped."""
    parts = [r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}"]
    for table in report.tables:
        columns = "l" * table.words + "r" * (len(table.head) - table.words)
        lines = [" & ".join(map(_latex, line)) + r" \\" for line in [table.head, *table.lines]]
        caption_lines = [f"{table.title}.", *report.notes] if table.title else report.notes
        caption = " ".join(map(_latex, caption_lines))
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"  \centering",
                    rf"  \caption{{{caption}}}",
                    rf"  \begin{{tabular}}{{{columns}}}",
                    r"    \toprule",
                    f"    {lines[0]}",
                    r"    \midrule",
                    *(f"    {line}" for line in lines[1:]),
                    r"    \bottomrule",
                    r"  \end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def _latex(entry: str | Number) -> str:
    if isinstance(entry, Number) and entry.values:
        number, bracket, paper = str(entry).partition(" [")
        paper, comma, difference = paper.removesuffix("]").rpartition(", ")
        beside = f"{bracket}{paper}{comma}${difference}$]" if bracket else ""
        return "$" + number.replace("±", r"\pm").replace(",", "{,}") + "$" + beside
    return "".join(LATEX.get(sign, sign) for sign in one_line(str(entry)))
