"""Tables and one figure over finished cells: mean and sample standard deviation over seeds, the teacher beside."""

import hashlib
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from dfkd.cell import content

# Where the options of a cell have their names, in the order of a table's columns.
NAMES = {
    "scenario": "ntl_scenario.name",
    "ID": "ntl_scenario.id.name",
    "OOD": "ntl_scenario.ood.name",
    "teacher": "teacher.name",
    "teacher network": "teacher.network.name",
    "synthesizer": "synthesizer.name",
    "noise": "noise.name",
    "student network": "student.network.name",
    "defense": "defense.name",
}
# What is measured: column -> where it stands in result.json.
MEASURES = {
    "teacher ID": "teacher.iacc",
    "student ID": "student.iacc",
    "agreement": "student.agreement",
    "grid agreement": "student.grid_agreement",
    "OOD acc": "student.oacc",
    "teacher OLAcc": "teacher.olacc",
    "OLAcc": "student.olacc",
    "teacher ASR": "teacher.asr",
    "ASR": "student.asr",
    "fragile": "fragile_share",
    "teacher evals": "teacher_evals",
    "seconds": "seconds.total",
}


@dataclass
class Row:
    """Cells that differ in their seed only.

    Attributes:
        label: what tells this row from the others, {column: value}.
        results: the content of their result.json.
        folders: their run folders.
    """

    label: dict[str, str]
    results: list[dict] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def values(self, measure: str) -> list[float]:
        """One number a cell; cells without it are left out."""
        found = (lookup(result, MEASURES[measure]) for result in self.results)
        return [value for value in found if value is not None]

    def points(self, *measures: str) -> list[list[float]]:
        """Several numbers a cell; cells that lack one are left out."""
        found = ([lookup(result, MEASURES[measure]) for measure in measures] for result in self.results)
        return [values for values in found if None not in values]

    def cell(self, measure: str) -> str:
        """'mean ± std' (sample standard deviation), the value alone for one cell, or '-' for none."""
        values = self.values(measure)
        if not values:
            return "-"
        form = {"fragile": ".2f", "seconds": ".0f", "teacher evals": ",.0f"}.get(measure, ".1f")
        mean = format(statistics.mean(values), form)
        return mean if len(values) == 1 else f"{mean} ± {format(statistics.stdev(values), form)}"


def lookup(node: dict, path: str) -> object:
    """The value under a dotted path (the sum of its parts, where it has some), or None."""
    for key in path.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return sum(node.values()) if isinstance(node, dict) else node


def collect(folders: list[Path]) -> list[Row]:
    """Group finished cells by everything but their seeds, in the order given."""
    rows: dict[str, Row] = {}
    for folder in folders:
        result = json.loads((folder / "result.json").read_text())
        config = {key: value for key, value in content(result["config"]).items() if key not in ("seed", "seeds")}
        row = rows.setdefault(json.dumps(config, sort_keys=True), Row({}))
        if folder not in row.folders:
            row.results.append(result)
            row.folders.append(folder)
    _name_rows(list(rows.values()))
    return list(rows.values())


def _name_rows(rows: list[Row]) -> None:
    """Label rows by the options that differ; by single numbers only where the options do not tell them apart."""
    flat = [flatten(content(row.results[0]["config"])) for row in rows]
    for column, path in NAMES.items():
        if len({leaves.get(path) for leaves in flat}) > 1:
            for row, leaves in zip(rows, flat, strict=True):
                row.label[column] = str(leaves.get(path, "-"))
    skipped = ("seed", *NAMES.values())
    paths = {path for leaves in flat for path in leaves}
    for path in sorted(paths, key=lambda path: (not path.endswith(".name"), path)):  # a name says more than its numbers
        if len({json.dumps(row.label, sort_keys=True) for row in rows}) == len(rows):
            break
        if path.startswith(skipped) or path.endswith("_target_"):
            continue
        alike: dict[str, set] = {}
        for row, leaves in zip(rows, flat, strict=True):
            alike.setdefault(json.dumps(row.label, sort_keys=True), set()).add(str(leaves.get(path)))
        if any(len(values) > 1 for values in alike.values()):
            for row, leaves in zip(rows, flat, strict=True):
                row.label[path.removesuffix(".name")] = str(leaves.get(path, "-"))
    for row in rows:
        row.label = row.label or {"cell": row.results[0]["cell"].rpartition("_s")[0]}


def flatten(node: object, prefix: str = "") -> dict[str, object]:
    """{dotted path: scalar or list} of nested dicts."""
    if not isinstance(node, dict):
        return {prefix: node}
    leaves: dict[str, object] = {}
    for key, value in node.items():
        leaves |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def markdown(rows: list[Row]) -> str:
    """The table: accuracies and rates in percent, mean ± sample standard deviation over n cells."""
    measures = [m for m in MEASURES if any(row.values(m) for row in rows)]
    if all(set(row.values("fragile")) <= {1.0} for row in rows) and "fragile" in measures:
        measures.remove("fragile")
    labels = list(dict.fromkeys(column for row in rows for column in row.label))
    lines = [[*labels, "n", *measures]]
    for row in rows:
        label = [row.label.get(column, "-") for column in labels]
        lines.append([*label, str(len(row.results)), *(row.cell(m) for m in measures)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    ruler = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([text[0], ruler, *text[1:]])


def report(folders: list[Path], root: Path) -> str:
    """Write table.md and figure.png for the given run folders; returns the text to print.

    Args:
        folders: of finished cells.
        root: the report goes to a folder below, named by its cells.
    """
    from dfkd.report_figure import draw

    rows = collect(folders)
    table = markdown(rows)
    name = hashlib.sha256("\n".join(sorted(f.name for f in folders)).encode()).hexdigest()[:8]
    out = root / name
    out.mkdir(parents=True, exist_ok=True)
    draw(rows, out / "figure.png")
    notes = "Students are those of the last round, on test images; percentages, mean ± sample std over n seeds."
    warnings = list(dict.fromkeys(w for row in rows for result in row.results for w in result["warnings"]))
    said = "".join(f"\nWARNING: {warning}" for warning in warnings)
    (out / "table.md").write_text(f"{table}\n\n{notes}\n{said}\n")
    every = [folder for row in rows for folder in row.folders]
    picture = next((folder for folder in every if (folder / "samples_robust.png").exists()), every[-1])
    return f"\n{table}\n\n{notes}{said}\n\nopen  {out / 'figure.png'}\n      {picture}/*.png\ntable {out / 'table.md'}"
