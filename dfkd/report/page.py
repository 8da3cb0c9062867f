"""The HTML page of a report: a single file that loads no other files."""

import base64
import hashlib
import os
from pathlib import Path
from urllib.parse import quote
from xml.etree.ElementTree import Element

from dfkd import __version__
from dfkd.config.lookup import NAMES, option
from dfkd.report import figures
from dfkd.report.content import Report
from dfkd.report.groups import Group
from dfkd.report.markup import drawing, picture, tag, write
from dfkd.report.runs import Run
from dfkd.report.tables import STUDENTS_IN_WORDS, Number, Table
from dfkd.run import provenance

HERE = Path(__file__).parent
PICTURED = 12  # largest number of groups whose images are shown
ABSENT = ("missing", "failed", "killed", "interrupted", "damaged", "unreadable")
ARROW = "\N{RIGHTWARDS ARROW}"


def page(report: Report, folder: Path) -> str:
    """Return the text of the HTML page.

    Args:
        folder: the folder of the page, for relative links to run folders.
    """
    css, js = ((HERE / name).read_text() for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(js.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    parts = [
        ("results", "Results", _results(report)),
        ("figures", "Figures", _figures(report)),
        ("images", "Images", _images(report)),
        ("unfinished", "Not finished", _unfinished(report)),
        ("warnings", "Warnings", _warnings(report)),
        ("cells", "Cells", _cells(report, folder)),
        ("provenance", "Provenance", _provenance(report)),
    ]
    parts = [(name, title, content) for name, title, content in parts if content]
    title = _title(report)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} - dfkd"),
        tag("style", css),
    )
    links = [tag("a", title, href=f"#{name}") for name, title, _ in parts]
    header = tag(
        "header", tag("p", "dfkd report", class_="kicker"), tag("h1", title), _common(report), tag("nav", *links)
    )
    sections = [tag("section", tag("h2", title), *content, id=name) for name, title, content in parts]
    footer = tag(
        "footer", f"Made by dfkd {__version__} from {len(report.done)} result.json files. Nothing here is fetched."
    )
    script = tag("script")
    script.text = js
    body = tag("body", tag("main", header, *sections, footer), script)
    return write(tag("html", head, body, lang="en"))


def _title(report: Report) -> str:
    """Return the title, such as '9 cells, 3 settings, seeds 0, 1, 2'."""
    seeds = list(dict.fromkeys(seed for group in report.groups for seed in group.seeds))
    groups = [group for group in report.groups if group.done]
    counted = [f"{n} {word}{'s' * (n != 1)}" for n, word in ((len(report.done), "cell"), (len(groups), "setting"))]
    shown = f"seed{'s' * (len(seeds) != 1)} {', '.join(seeds)}" if 0 < len(seeds) <= 6 else f"{len(seeds)} seeds"
    return ", ".join([*counted, shown])


def _common(report: Report) -> Element:
    """Make a line with the options that all cells have in common, and with the student that is measured."""
    items = [tag("span", tag("b", "student"), " ", STUDENTS_IN_WORDS[report.student])]
    for name in NAMES:
        values = {option(run.config, name) for group in report.groups for run in group.runs}
        if len(values) == 1 and None not in values:
            items.append(tag("span", tag("b", name), " ", *values))
    return tag("p", *items, class_="common")


def _results(report: Report) -> list[Element]:
    blocks = [_table(table, report, f"table-{i}") for i, table in enumerate(report.tables)]
    return [*blocks, tag("div", *(tag("p", note) for note in report.notes), class_="notes")]


def _table(table: Table, report: Report, name: str) -> Element:
    numbers = {id(group): i for i, group in enumerate(report.groups)}
    rows = []
    for line, group in zip(table.lines, table.groups, strict=True):
        i = numbers.get(id(group))
        cells = [_entry(entry, column < table.words) for column, entry in enumerate(line)]
        if i is not None:
            cells[0] = tag("th", _dot(i), tag("small", f"{i + 1} "), str(line[0]), scope="row", data_text=str(line[0]))
        rows.append(tag("tr", *cells, data_group=None if i is None else f"group-{i}"))
    return _sortable(table.head, table.words, rows, table.title, name, _about(report))


def _about(report: Report) -> dict[str, str]:
    """Return the tooltips of column heads, {head: text}."""
    return {m.name: m.about for m in report.measures if m.about}


def _dot(i: int) -> Element:
    """Make a dot in the colour of the i-th group."""
    return tag("i", class_="dot", style=f"background:{figures.colour(i)}")


def _entry(entry: str | Number, names_the_row: bool = False) -> Element:
    """Make a cell of a table; numbers have a sort key as an attribute."""
    if names_the_row:
        return tag("th", str(entry), scope="row")
    if not isinstance(entry, Number):
        return tag("td", entry, class_="absent" if entry in ABSENT else "word")
    if entry.mean is None:
        return tag("td", "\N{EN DASH}", class_="number absent")
    mean, _, rest = str(entry).partition(" ")
    values = ", ".join(f"{value:g}" for value in entry.values)
    return tag(
        "td",
        f"{mean} " if rest else mean,  # the space allows a line break in a narrow column
        tag("small", rest.replace("± ", "±\N{NO-BREAK SPACE}")) if rest else None,
        class_="number",
        data_sort=repr(entry.mean),
        title=values,
    )


def _sortable(
    head: list[str], words: int, rows: list[Element], title: str, name: str, about: dict[str, str]
) -> Element:
    """Make a table that can be sorted by its heads and filtered by a text field.

    Args:
        words: number of first columns that contain text, not numbers.
        name: id of the table.
        about: tooltips, {head: text}.
    """
    field = tag("input", type="search", placeholder="filter rows", aria_label="filter rows", data_filters=name)
    heads = [
        tag(
            "th",
            tag("button", text, type="button"),
            scope="col",
            class_=None if i < words else "number",
            title=about.get(text),
        )
        for i, text in enumerate(head)
    ]
    kind = "crowded" if len(head) > 10 else None
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), id=name, class_=kind)
    over = tag("div", tag("h3", title) if title else tag("span"), field if len(rows) > 3 else None, class_="over")
    return tag("div", over, tag("div", table, class_="scroll"), class_="block")


def _figures(report: Report) -> list[Element]:
    """Make those of the figures trap, bars and curves for which there are data."""
    elements = []
    for draw, title, about in (
        (
            figures.trap,
            "The trap",
            "A small point is a cell, a large one the mean of a row, a cross a teacher. Arrows lead from the "
            "undefended student to a defended one. Down and to the right is better.",
        ),
        (
            figures.audit,
            "The audit and what is inherited",
            "How likely the teacher is trapped, from the teacher alone, and how much of the trap the student has.",
        ),
        (figures.bars, "Side by side", "Mean and sample standard deviation over seeds."),
        (
            figures.curves,
            "Learning curves",
            "ID accuracy on validation images as the student learns, one line a cell; dotted lines are cells that have "
            "not finished.",
        ),
    ):
        with figures.style(figures.INK, draw.__name__):
            figure = draw(report, figures.INK)
            svg = figures.as_svg(figure) if figure else None
        if svg:
            caption = tag("figcaption", tag("b", title), " ", about)
            elements.append(tag("figure", drawing(svg, title), caption, class_=draw.__name__))
    hint = "Point at a mark, or at a row of a table: its setting stands out everywhere."
    return [tag("p", hint, class_="notes"), *elements] if elements else []


def _images(report: Report) -> list[Element]:
    """Show synthetic images or decision fields of the first finished cell of every group."""
    groups = [(i, group) for i, group in enumerate(report.groups) if group.done]
    blocks = [block for i, group in groups[:PICTURED] if (block := _images_of(group, i)) is not None]
    if blocks and len(groups) > PICTURED:
        blocks.append(tag("p", f"{len(groups) - PICTURED} more settings are not pictured here: see their run folders."))
    return blocks


def _images_of(group: Group, i: int) -> Element | None:
    run = group.done[0]
    wide = picture(run.folder / "decision_fields.png", 1100, f"decision fields of {run.name}", "wide")
    if wide is None:
        wide = picture(run.folder / "projection.png", 740, f"real and synthetic examples of {run.name}", "wide")
    split = (run.folder / "samples_robust.png").exists() and (run.folder / "samples_fragile.png").exists()
    kinds = ("fragile", "robust") if split else ("all",)
    grids = [picture(run.folder / f"samples_{kind}.png", 380, f"{kind} images of {run.name}") for kind in kinds]
    shown = [image for image in ([wide] if wide is not None else grids) if image is not None]
    if not shown:
        return None
    return tag("figure", tag("h3", _dot(i), group.name), tag("div", *shown, class_="pictures"),
               tag("figcaption", tag("code", run.name)), class_="images")  # fmt: skip


def _unfinished(report: Report) -> list[Element]:
    items = []
    for run in report.unfinished:
        again = run.command if run.status != "running" else None
        items.append(
            tag(
                "li",
                tag("b", run.status, class_=f"status {run.status}"),
                " ",
                tag("code", run.name),
                tag("p", run.reason),
                tag("pre", again) if again else None,
            )
        )
    return [tag("ul", *items, class_="unfinished")] if items else []


def _warnings(report: Report) -> list[Element]:
    items = []
    for text, names in report.warnings.items():
        where = f"such in {len(names)} of {len(report.done)} cells" if len(names) > 1 else names[0]
        items.append(tag("li", text, " ", tag("small", where)))
    return [tag("ul", *items)] if items else []


def _cells(report: Report, folder: Path) -> list[Element]:
    """Make the table with one row per finished cell."""
    rows = []
    for i, group in enumerate(report.groups):
        for run in group.done:
            link = tag("a", run.name, href=_link(run, folder))
            numbers = [Number(() if (value := m.value(run)) is None else (value,), m.form) for m in report.measures]
            cells = [tag("th", _dot(i), link, scope="row"), *map(_entry, [Number((_seed(run),), "g"), *numbers])]
            rows.append(tag("tr", *cells, data_group=f"group-{i}"))
    head = ["cell", "seed", *(m.name for m in report.measures)]
    return [_sortable(head, 1, rows, "", "table-cells", _about(report))] if rows else []


def _seed(run: Run) -> float:
    return run.seed if isinstance(run.seed, int | float) else -1


def _link(run: Run, folder: Path) -> str:
    return quote(os.fsencode(os.path.relpath(run.folder.resolve(), folder.resolve()))) + "/"


def _provenance(report: Report) -> list[Element]:
    """List commits, devices and versions of the finished cells, and the commands that repeat them."""
    facts: dict[str, dict[str, int]] = {}
    for run in report.done:
        versions = run.result.get("versions")
        entries = {"commit": run.result.get("commit"), "device": run.result.get("device")}
        entries |= {"precision": run.result.get("precision")} | (versions if isinstance(versions, dict) else {})
        for name, value in entries.items():
            counts = facts.setdefault(str(name), {})
            counts[str(value or "unknown")] = counts.get(str(value or "unknown"), 0) + 1
    rows = []
    for name, counts in facts.items():
        several = len(counts) > 1
        text = "; ".join(f"{value} ({n} cells)" if several else value for value, n in counts.items())
        rows.append(tag("tr", tag("th", name, scope="row"), tag("td", text, class_="differs" if several else None)))
    commands = [run.command for run in report.done if run.command]
    listed = (
        tag("details", tag("summary", "The commands, one a cell"), tag("pre", "\n".join(commands)))
        if commands
        else None
    )
    made = provenance.commit()
    page_by = f"This page: dfkd {__version__}" + (f", commit {made}." if made else ".")
    return [
        tag("table", tag("tbody", *rows), class_="facts"),
        *([listed] if listed is not None else []),
        tag("p", page_by),
    ]
