"""The finished cells of every study, in docs/measured/studies/NAME.jsonl, which outlive the machines that ran them.

A line is either a section of a configuration, which many cells share and name by its number, or a cell:

    {"section": "synthesizer", "number": 0, "value": {...}}
    {"cell": "...", "config": {"seed": 0, ...}, "sections": {"synthesizer": 0, ...}, "result": {...}}

A cell that failed has the reason (`failed`) in the place of a result, since images that diverge are an answer, too. Of
the configuration everything is kept that can change a result, without folders; of the result what pages read, the
version of torch, and the numbers that a page derives from files of the store (`derived`).
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from dfkd.config.cell import NOT_CONTENT, content
from dfkd.report.runs import Run

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "measured" / "studies"
READ = ("until", "metrics")  # sections that pages read, or that tell cells apart, although they change no result
RESULTS = (
    *("student", "teacher", "teacher_evals", "fragile_share", "pool_labels", "leakage", "derived"),
    *("seconds_this_run", "device", "torch"),
)


def joined(kept: Iterable[Run], new: Iterable[Run]) -> list[Run]:
    """Return kept cells and new ones, in this order. A new cell takes the place of a kept one of its configuration.

    Where both have the same numbers, it takes what was derived of the kept one, too.
    """
    cells = {identity(run): run for run in kept}
    for run in new:
        old = cells.get(identity(run))
        if old is not None and numbers(run) == numbers(old):
            run.result["derived"] = old.result.get("derived", {}) | run.result.get("derived", {})
        cells[identity(run)] = run
    return list(cells.values())


def derived(run: Run, name: str, compute: Callable[[Run], object]) -> object:
    """Return what is derived from the files of a cell, as JSON can hold it; it is computed once and kept under `name`.

    Raises:
        ValueError: it was not kept, and the files are on another machine.
    """
    known = run.result.setdefault("derived", {})
    if name not in known:
        if run.folder is None:
            raise ValueError(f"'{name}' of {run.name} was not kept, and its files are not here: run it again")
        known[name] = compute(run)
    return known[name]


def read(study: str) -> list[Run]:
    """Return the kept cells of a study, finished and failed ones; [] if there are none."""
    file = FOLDER / f"{study}.jsonl"
    lines = map(json.loads, file.read_text().splitlines() if file.exists() else [])
    sections: dict[str, list] = {}
    cells = []
    for line in lines:
        if "section" in line:
            sections.setdefault(line["section"], []).append(line["value"])
        else:
            parts = {name: sections[name][number] for name, number in line["sections"].items()}
            config, failed = line["config"] | parts, line.get("failed")
            status = "done" if failed is None else "failed"
            cells.append(Run(line["cell"], None, status, config, line.get("result", {}), failed or ""))
    return cells


def save(study: str, cells: Iterable[Run]) -> None:
    """Write the kept cells of a study."""
    sections: dict[str, list] = {}
    lines = []
    for run in cells:
        values, numbered = {}, {}
        for name, value in config_of(run).items():
            if not isinstance(value, dict):
                values[name] = value
                continue
            known = sections.setdefault(name, [])
            texts = list(map(json.dumps, known))  # compared as text: the order of entries may be that of a label
            if json.dumps(value) not in texts:
                known.append(value)
                texts.append(json.dumps(value))
            numbered[name] = texts.index(json.dumps(value))
        outcome = {"result": result_of(run)} if run.done else {"failed": run.reason}
        lines.append({"cell": run.name, "config": values, "sections": numbered} | outcome)
    shared = [
        {"section": name, "number": number, "value": value}
        for name, known in sections.items()
        for number, value in enumerate(known)
    ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{study}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in (*shared, *lines)))


def config_of(run: Run) -> dict:
    """Return the part of a cell's configuration that is kept, without folders of the machine; the precision is the one
    that it was computed in, also for `auto`."""
    chosen = {key: value for key, value in run.config.items() if key in READ or key not in NOT_CONTENT}
    data = {key: value for key, value in run.config["data"].items() if key not in ("root", "download")}
    precision = run.result.get("precision") or run.config["runtime"]["precision"]
    return without_folders(chosen | {"data": data, "runtime": {"precision": precision}})


def without_folders(node: object) -> object:
    """Return a configuration in which only the name is left of every absolute path."""
    if isinstance(node, dict):
        return {key: without_folders(value) for key, value in node.items()}
    if isinstance(node, list):
        return [without_folders(value) for value in node]
    return Path(node).name if isinstance(node, str) and node.startswith("/") else node


def result_of(run: Run) -> dict:
    """Return the part of a cell's result that is kept."""
    result = run.result | {"torch": run.result.get("torch") or run.result.get("versions", {}).get("torch")}
    kept = {key: result[key] for key in RESULTS if result.get(key) not in (None, {})}
    for who in ("student", "teacher"):
        if who in kept:
            kept[who] = {key: value for key, value in kept[who].items() if value is not None}
    return kept


def numbers(run: Run) -> dict:
    """Return the kept part of a result without what is derived of it."""
    return {key: value for key, value in result_of(run).items() if key != "derived"}


def identity(run: Run) -> str:
    """Return a text that is the same for cells of the same command on any machine."""
    config = config_of(run)
    return json.dumps(content(config) | {"until": config.get("until")}, sort_keys=True)
