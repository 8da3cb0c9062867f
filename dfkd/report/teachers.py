"""The table of teachers (until=premise or audit): accuracies, confidences, and how often an attack flips their
predictions."""

from pathlib import Path

from dfkd.config.lookup import value_at
from dfkd.metrics import FORMS
from dfkd.report import short_name
from dfkd.report.groups import by_content
from dfkd.report.runs import Run, find
from dfkd.report.tables import Number, Table, metrics_of
from dfkd.report.text import grid

# Columns in addition to the metrics of a teacher: head -> path in result.json, form.
BESIDE = {
    "ID confidence": ("premise.id_confidence", "share"),
    "OOD confidence": ("premise.ood_confidence", "share"),
    "audit": ("audit.probability", "share"),
    "seconds": ("seconds.teacher", "seconds"),
}


def teacher_table(runs: list[Run]) -> str:
    """Return the table as Markdown: a row per setting, with mean ± sample standard deviation over n seeds.

    Accuracies and rates are in percent; a confidence is the mean largest probability, and
    `audit` the probability that a teacher is trapped. For every radius of the attack
    there are the rates of flipped ID / flipped OOD validation images; `premise` lists the radii at which ID images flip
    more often in every seed.

    Args:
        runs: finished cells.
    """
    metrics = [metric for metric in metrics_of(runs) if metric.of_teacher]
    columns = {metric.head or metric.label: (f"teacher.{metric.key}", metric.form) for metric in metrics} | BESIDE
    rows = [(group.label, [run.result for run in group.done]) for group in by_content(runs)]
    labels = list(dict.fromkeys(column for label, _ in rows for column in label))
    radii = sorted({flip["eps"] for _, results in rows for result in results for flip in flips_of(result)})
    head, lines = [*labels, "n", *columns, *(f"flips {_radius(eps)}" for eps in radii), "premise"], []
    for label, results in rows:
        # OLAcc of a teacher makes sense only with a taught label. In a close set a teacher trivially repeats all of its
        # own errors, so that it is always 100.
        taught = [r for r in results if value_at(r, "config.ntl_scenario.ood_label") is not None]
        sources = {name: taught if name == "OLAcc" else results for name in columns}
        measured = [_mean(sources[name], path, FORMS[form]) for name, (path, form) in columns.items()]
        flips = [_flips(results, eps) for eps in radii]
        holds = ", ".join(_radius(eps) for eps in radii if _holds(results, eps)) or "fails"
        has_ood = any(held is not None for result in results for held in result.get("premise", {}).get("holds", ()))
        named = [label.get(column, "-") for column in labels]
        lines.append([*named, str(len(results)), *measured, *flips, holds if has_ood else "-"])
    used = [i for i in range(len(head)) if any(line[i] != "-" for line in lines)]
    return grid(Table("", len(labels), [head[i] for i in used], [[line[i] for i in used] for line in lines]))


def report_of_teachers(sweep: Path, root: Path) -> str:
    """Write the table of a sweep of teachers (until=premise or audit).

    Args:
        sweep: the list of the sweep, outputs/sweeps/*.jsonl.
        root: parent of the table's folder, whose name is a hash of its cells.

    Returns:
        the text to print.
    """
    runs = [run for run in find([sweep]) if run.done]
    file = root / short_name(*sorted(run.name for run in runs)) / "teachers.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    notes = "Accuracies on test, flips (ID / OOD) on validation images; percentages, mean ± sample std over n seeds."
    text = f"{teacher_table(runs)}\n\n{notes}\n"
    file.write_text(text, encoding="utf-8")
    return f"\n{text}\ntable {file}"


def flips_of(result: dict) -> list[dict]:
    """Return the flip rates of a result, one per radius; [] if the premise was not measured."""
    return result.get("flip_rates", [])


def _mean(results: list[dict], path: str, form: str) -> str:
    return str(Number(tuple(value for result in results if (value := value_at(result, path)) is not None), form))


def _at(results: list[dict], eps: float) -> list[dict]:
    """Return the flip rates at one radius, of the cells that have it."""
    return [flip for result in results for flip in flips_of(result) if flip["eps"] == eps]


def _flips(results: list[dict], eps: float) -> str:
    flips = _at(results, eps)
    parts = [_mean(flips, domain, ".0f") for domain in ("id", "ood")]
    return parts[0] if parts[1] == "-" else " / ".join(parts)


def _holds(results: list[dict], eps: float) -> bool:
    flips = _at(results, eps)
    return bool(flips) and all(flip["ood"] is not None and flip["id"] > flip["ood"] for flip in flips)


def _radius(eps: float) -> str:
    return f"{eps * 255:.3g}/255"
