"""The table of judged teachers (until=premise): what they know, how sure they are, how often an attack flips them."""

import hashlib
import statistics
from pathlib import Path

from dfkd.report import collect, lookup

MEASURES = {
    "ID acc": "teacher.iacc",
    "OOD acc": "teacher.oacc",
    "OLAcc": "teacher.olacc",
    "ASR": "teacher.asr",
    "ID confidence": "premise.id_confidence",
    "OOD confidence": "premise.ood_confidence",
    "seconds": "seconds.teacher",
}
FORMS = {"ID confidence": ".2f", "OOD confidence": ".2f", "seconds": ".0f"}


def teacher_table(folders: list[Path]) -> str:
    """Markdown: a row for cells that differ in their seed only, mean ± sample standard deviation over n seeds.

    Accuracies and rates in percent, confidence is the mean largest probability. For every radius of the attack:
    flipped ID / flipped OOD validation images; `premise` lists the radii at which ID flips more in every seed.

    Args:
        folders: run folders of finished cells.
    """
    rows = collect(folders)
    labels = list(dict.fromkeys(column for row in rows for column in row.label))
    radii = sorted({flip["eps"] for row in rows for result in row.results for flip in result["flip_rates"]})
    lines = [[*labels, "n", *MEASURES, *(f"flips {_radius(eps)}" for eps in radii), "premise"]]
    for row in rows:
        # in a close set no one label is taught, and a teacher repeats itself: always 100
        taught = [r for r in row.results if lookup(r, "config.ntl_scenario.ood_label") is not None]
        sources = {name: taught if name == "OLAcc" else row.results for name in MEASURES}
        measured = [_mean(sources[name], path, FORMS.get(name, ".1f")) for name, path in MEASURES.items()]
        flips = [_flips(row.results, eps) for eps in radii]
        holds = ", ".join(_radius(eps) for eps in radii if _holds(row.results, eps)) or "fails"
        has_ood = any(held is not None for result in row.results for held in result["premise"]["holds"])
        label = [row.label.get(column, "-") for column in labels]
        lines.append([*label, str(len(row.results)), *measured, *flips, holds if has_ood else "-"])
    used = [i for i in range(len(lines[0])) if any(line[i] != "-" for line in lines[1:])]
    lines = [[line[i] for i in used] for line in lines]
    ruler = ["---"] * len(used)
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], ruler, *lines[1:]))


def teacher_report(folders: list[Path], root: Path) -> str:
    """Write the table below `root`, in a folder named by its cells; returns the text to print."""
    name = hashlib.sha256("\n".join(sorted(f.name for f in folders)).encode()).hexdigest()[:8]
    file = root / name / "teachers.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    notes = "Accuracies on test, flips (ID / OOD) on validation images; percentages, mean ± sample std over n seeds."
    text = f"{teacher_table(folders)}\n\n{notes}\n"
    file.write_text(text)
    return f"\n{text}\ntable {file}"


def _mean(results: list[dict], path: str, form: str) -> str:
    values = [value for value in (lookup(result, path) for result in results) if value is not None]
    if not values:
        return "-"
    mean = format(statistics.mean(values), form)
    return mean if len(values) == 1 else f"{mean} ± {format(statistics.stdev(values), form)}"


def _at(results: list[dict], eps: float) -> list[dict]:
    """What the attack of one radius found in every cell that has it."""
    return [flip for result in results for flip in result["flip_rates"] if flip["eps"] == eps]


def _flips(results: list[dict], eps: float) -> str:
    found = _at(results, eps)
    parts = [_mean(found, domain, ".0f") for domain in ("id", "ood")]
    return parts[0] if parts[1] == "-" else " / ".join(parts)


def _holds(results: list[dict], eps: float) -> bool:
    found = _at(results, eps)
    return bool(found) and all(flip["ood"] is not None and flip["id"] > flip["ood"] for flip in found)


def _radius(eps: float) -> str:
    return f"{eps * 255:.3g}/255"
