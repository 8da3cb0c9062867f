"""docs/gpu.md and the table of the README, made from the files of docs/measured."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

from benchmark.measure import TFLOPS

from dfkd.report.text import markdown_table
from gpu import about, field, record, right, teachers, ways, whole

MISSING = "not measured"
HEAD = """# What a GPU has shown

    make gpu DATA=DIR                    # 5 + 9 minutes; the same command goes on where it was stopped

`DIR` holds CIFAR-10: torchvision's `cifar-10-batches-py`, an archive `cifar10.npz` (x_train, y_train, x_test,
y_test), or the same as 18 MB of JPEG pictures, `cifar10_jpegq75_pack.npz` (`scripts/gpu/data.py`). It needs no network,
stops in time, and writes this page and one JSON file a row (`docs/measured/`). It tells whether a machine is set up
well: the first half compares what the device computes with the CPU, starts runs in several ways and measures the speed;
the second computes whole cells, and gives the field's table in a fraction of the published steps. This page is made by
`python scripts/make_gpu.py page`.
"""
EARLIER = "at commit"  # head of the column of rows that an earlier commit has measured
START, END = "<!-- made by scripts/make_gpu.py -->", "<!-- end -->"


def gpu_page(measured: Path) -> str:
    """Return the text of docs/gpu.md."""
    parts = [HEAD.rstrip(), _right(measured), _ways(measured), _bench(measured), _whole(measured), _field(measured)]
    return "\n\n".join(parts) + "\n"


def write(measured: Path, page: Path, readme: Path | None = None) -> None:
    """Write the page, and the table between the two marks of a README."""
    page.write_text(gpu_page(measured))
    if readme is not None:
        text = readme.read_text()
        table = f"{START}\n{readme_table(measured)}\n{END}"
        readme.write_text(re.sub(f"{re.escape(START)}.*?{re.escape(END)}", lambda _: table, text, flags=re.DOTALL))


def _provenance(content: dict | None) -> str:
    if content is None:
        return f"Card: {MISSING}."
    commit = (content.get("commit") or "unknown")[:10]
    return (
        f"{content['card']}, torch {content['torch']}, Python {content['python']}, commit {commit}, {content['date']}."
    )


def _right(measured: Path) -> str:
    content = about.read(measured / "right.json")
    about_rows = (
        f"One step of every synthesizer and defense, and one epoch of every teacher, at toy size: on the device and on "
        f"the CPU, from the same random numbers in float32. Given is the largest difference of a trained weight, as a "
        f"share of the largest of its tensor. It may be {right.TOLERANCE:g}, or {right.TIMES} times what rounding "
        f"makes of the cell on a CPU: with another kernel, or from weights that differ by {right.SHAKE:g}."
    )
    names = [name for name, *_ in right.compared()]

    def told(row: dict) -> str:
        return f"{row['difference']:.1e}; rounding {row['rounding']:.1e}"

    table = _answers("difference", names, content, told)
    return "\n\n".join(["## Half 1: right and fast", _provenance(content), textwrap.fill(about_rows, 120), table])


def _ways(measured: Path) -> str:
    content = about.read(measured / "ways.json")
    about_rows = (
        "Runs that are started in other ways. In another folder and by torchrun the student has to be that of this "
        "process; with a profiler a run has to end, and to say what synthesis and distillation take."
    )
    table = _answers("what was compared", list(ways.MEASURES), content, lambda row: row["compared"])
    return "\n\n".join([textwrap.fill(about_rows, 120), table])


def _whole(measured: Path) -> str:
    content = about.read(measured / "whole.json")
    about_rows = (
        "Cells of the digits beside each other on the device against the same cells in turn; students in bfloat16 "
        "beside students in float32, right if the means differ by no more than the seeds do; a teacher of CIFAR-10 "
        "beside a plain PyTorch loop. An H100 took 75, 50 and 59 seconds for them. The last row is the teacher of the "
        "next table."
    )
    names = [*whole.MEASURES, teachers.BESIDE_PLAIN, teachers.SHORT]
    table = _answers("what was compared", names, content, lambda row: row["compared"])
    return "\n\n".join(["## Half 2: whole cells", _provenance(content), textwrap.fill(about_rows, 120), table])


def _answers(what: str, names: list[str], content: dict | None, told: Callable[[dict], str]) -> str:
    """Return a table of rows that are right or not.

    Args:
        what: head of the last column, which `told` says of a row.
    """
    rows = (content or {}).get("rows", {})

    def line(name: str) -> list[str]:
        row = rows.get(name)
        if row is None:
            return [name, MISSING, "", ""]
        if "error" in row:
            return [name, "**fails**", row["error"], _commit(row)]
        return [name, "yes" if row["right"] else "**no**", told(row), _commit(row)]

    return _without_empty(["what", "right", what, EARLIER], [line(name) for name in names])


def _commit(row: dict) -> str:
    """Return the commit of a row that is not of that of its file."""
    return (row.get("commit") or "")[:10]


def _without_empty(head: list[str], lines: list[list[str]]) -> str:
    """Return a table without its last column if nothing stands there."""
    shown = len(head) if any(line[-1] for line in lines) else len(head) - 1
    return markdown_table(head[:shown], [line[:shown] for line in lines])


def _bench(measured: Path) -> str:
    content = about.read(measured / "bench.json")
    if content is None or not content["rows"]:
        return f"The benchmark (`scripts/bench.py`): {MISSING}."
    head = ["benchmark", "against", "median", "TFLOP/s", "goal", "met", "correct", EARLIER]
    lines = []
    for case, found in content["rows"].items():
        lines += [[case, "", "**fails**", "", "", "", found["error"], _commit(found)]] if "error" in found else []
        lines += [[*_speed(row), _commit(found)] for row in found.get("rows", [])]
    return "\n\n".join([f"The benchmark (`scripts/bench.py`): {_provenance(content)}", _without_empty(head, lines)])


def _speed(row: dict) -> list[str]:
    goal, is_ratio = row["goal"], row["unit"] == "ratio"
    median = f"{row['median']:.2f}" if is_ratio else f"{row['median']:.4g} {row['unit']}"
    rate = row["rates"].get(TFLOPS)
    wanted = [f"{goal['kind']} {goal['value']:g}", "yes" if row["met"] else "**no**"] if goal else ["none", ""]
    teraflops = "" if rate is None else f"{rate:.3g}"
    return [row["what"], row["against"], median, teraflops, *wanted, "yes" if row["correct"] else "**no**"]


def _field(measured: Path) -> str:
    about_rows = (
        "One ResNet-34 teacher, ResNet-18 students beside each other, one seed. Reported numbers are of the whole "
        "recipes; what a row has of the recipe's steps, and why it cannot be compared, stands beside. TFLOP/s are of "
        "one cell, which shares the card with others, and at the least: counted are the teacher's forward passes, and "
        "the forward and backward passes of the student's steps, not the gradients of images nor generators."
    )
    table = field_table(measured, long=True)
    return "\n\n".join(["## Half 2: the field's table", textwrap.fill(about_rows, 120), table])


def field_table(measured: Path, long: bool = False) -> str:
    """Return the table of the second half.

    Args:
        long: with teacher, minutes, operations a second, card and source.
    """
    head = ["CIFAR-10", "reported ID", "measured ID", "agreement", "reported ASR", "measured ASR", "not comparable"]
    rows = []
    for name, recipe in field.recipes().items():
        content = about.read(measured / f"{record.file_name(name)}.json")
        rows.append(_row(name, content, record.reported(recipe), long))
    return markdown_table([*head, *(["teacher ID", "minutes", "TFLOP/s", "where", "source"] if long else [])], rows)


def readme_table(measured: Path) -> str:
    """Return the table for the README: that of the second half, or a sentence while most of it was not measured."""
    names = list(field.recipes())
    there = sum((measured / f"{record.file_name(name)}.json").exists() for name in names)
    if there > len(names) / 2:
        return field_table(measured)
    return (
        f"So far, {there} of {len(names)} rows of the field's table are measured. They, what else is, and on which "
        f"card, stand there."
    )


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
    cost = [str(got.get(key, "")) for key in ("minutes", "tflops")]
    return [*row, percent(got.get("teacher")), *cost, where, "; ".join(sources)]
