"""docs/gpu.md and the table of the README, made from the files of docs/measured."""

import re
import textwrap
from pathlib import Path

from gpu import about, field, record, right

MISSING = "not measured"
HEAD = """# What a GPU has shown

    make gpu DATA=DIR                    # 5 + 9 minutes; the same command goes on where it was stopped

`DIR` holds CIFAR-10: torchvision's `cifar-10-batches-py`, an archive `cifar10.npz` (x_train, y_train, x_test,
y_test), or the same as 18 MB of JPEG pictures, `cifar10_jpegq75_pack.npz` (`scripts/gpu/data.py`). It needs no network,
stops in time, and writes this page and one JSON file a row (`docs/measured/`). It tells whether a machine is set up
well: the first half compares what the device computes with the CPU, the second gives the field's table in a fraction of
the published steps. This page is made by `python scripts/make_gpu.py page`.
"""
START, END = "<!-- made by scripts/make_gpu.py -->", "<!-- end -->"


def gpu_page(measured: Path) -> str:
    """Return the text of docs/gpu.md."""
    return "\n".join([HEAD, _right(measured), "", _bench(measured), "", _field(measured)]) + "\n"


def write(measured: Path, page: Path, readme: Path | None = None) -> None:
    """Write the page, and the table between the two marks of a README."""
    page.write_text(gpu_page(measured))
    if readme is not None:
        text = readme.read_text()
        table = f"{START}\n{readme_table(measured)}\n{END}"
        readme.write_text(re.sub(f"{re.escape(START)}.*?{re.escape(END)}", lambda _: table, text, flags=re.DOTALL))


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _provenance(content: dict | None) -> str:
    if content is None:
        return f"Card: {MISSING}."
    commit = (content.get("commit") or "unknown")[:10]
    return (
        f"{content['card']}, torch {content['torch']}, Python {content['python']}, commit {commit}, {content['date']}."
    )


def _right(measured: Path) -> str:
    content = about.read(measured / "right.json")
    rows = (content or {}).get("rows", {})

    def line(name: str) -> list[str]:
        row = rows.get(name)
        if row is None:
            return [name, MISSING, ""]
        if "error" in row:
            return [name, "**fails**", row["error"].replace("|", "/").replace("\n", " ")]
        return [name, "yes" if row["right"] else "**no**", f"{row['difference']:.1e}"]

    about_rows = (
        f"Every synthesizer, defense and teacher at toy size, on the device and on the CPU, from the same random "
        f"numbers in float32: the largest difference of a trained weight, as a share of the largest of its tensor, may "
        f"be {right.TOLERANCE:g}."
    )
    table = _table(["what", "right", "difference"], [line(name) for name, *_ in right.rows()])
    return "\n\n".join(["## Half 1: right and fast", _provenance(content), textwrap.fill(about_rows, 120), table])


def _bench(measured: Path) -> str:
    content = about.read(measured / "bench.json")
    if content is None:
        return f"The benchmark (`scripts/bench.py`): {MISSING}."
    rows = [
        [row["what"], row["against"], f"{row['median']:.2f}", f"{row['goal']['kind']} {row['goal']['value']:g}",
         "yes" if row["met"] else "**no**", "yes" if row["correct"] else "**no**"]
        for row in content["rows"]
    ]  # fmt: skip
    return _table(["benchmark", "against", "median", "goal", "met", "correct"], rows)


def _field(measured: Path) -> str:
    about_rows = (
        "One ResNet-34 teacher, ResNet-18 students beside each other, one seed. Reported numbers are of the whole "
        "recipes; what a row has of the recipe's steps, and why it cannot be compared, stands beside."
    )
    table = field_table(measured, long=True)
    return "\n\n".join(["## Half 2: the field's table", textwrap.fill(about_rows, 120), table])


def field_table(measured: Path, long: bool = False) -> str:
    """Return the table of the second half.

    Args:
        long: with minutes, teacher, card and source.
    """
    head = ["CIFAR-10", "reported ID", "measured ID", "agreement", "reported ASR", "measured ASR", "not comparable"]
    rows = []
    for name, recipe in field.recipes().items():
        content = about.read(measured / f"{record.file_name(name)}.json")
        rows.append(_row(name, content, record.reported(recipe), long))
    return _table([*head, *(["teacher ID", "minutes", "where", "source"] if long else [])], rows)


def readme_table(measured: Path) -> str:
    """Return the table for the README: that of the second half, or a sentence as long as nothing of it was measured."""
    if any((measured / f"{record.file_name(name)}.json").exists() for name in field.recipes()):
        return field_table(measured)
    return "Nothing of this was measured yet: no GPU was at hand since the command exists."


def _row(name: str, content: dict | None, told: dict, long: bool) -> list[str]:
    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    got = (content or {}).get("measured", {})
    id, asr = (f"{told[key]['value']:g}" if told[key] else "" for key in ("id", "asr"))
    row = [name, id, percent(got.get("id")) or MISSING, percent(got.get("agreement")), asr, percent(got.get("asr"))]
    row.append((content["not_comparable"] or "comparable") if content else "")
    if not long:
        return row
    sources = dict.fromkeys(entry["source"] for entry in (told["id"], told["asr"]) if entry)
    where = _provenance(content) if content else ""
    return [*row, percent(got.get("teacher")), str(got.get("minutes", "")), where, "; ".join(sources)]
