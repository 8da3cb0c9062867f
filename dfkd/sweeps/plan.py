"""`dry_run=true`: the text of a plan, what a run or a sweep would do."""

from collections.abc import Iterable
from pathlib import Path

from dfkd.store.store import Store

NAMED = 5  # largest number of cells listed for a shared stage
TRAINED = ("teacher", "student")  # stages for which the text says 'train'; for others it says 'make'


def plan_in_words(rows: list[dict], store: Store) -> str:
    """Return the text of a plan: a paragraph per cell, and the totals.

    Args:
        rows: for each cell `number`, `folder` and `status`; if the status is 'planned', also `stages`, {name: key} in
            the order in which they are made.
        store: the store, which knows the stages that exist already.
    """
    planned = [row for row in rows if row["status"] == "planned"]
    users: dict[tuple[str, str], list[int]] = {}
    for row in planned:
        for stage in row["stages"].items():
            users.setdefault(stage, []).append(row["number"])
    there = {stage for stage in users if store.find(*stage)}
    begun = {stage for stage in users.keys() - there if any((store.root / stage[0]).glob(f".{stage[1]}.checkpoint*"))}

    def part(stage: tuple[str, str], number: int) -> str:
        others = [str(other) for other in users[stage][: NAMED + 1] if other != number][:NAMED]
        left = len(users[stage]) - 1 - len(others)
        more = f" and {left} more" if left else ""
        shared = f" (also for {', '.join(others)}{more})" if others and stage not in there else ""
        return f"{' '.join(stage)}{' (goes on)' if stage in begun else ''}{shared}"

    lines = []
    for row in rows:
        name = Path(row["folder"] or "?").name
        if row["status"] != "planned":
            state = {"done": "finished before", "failed": "cannot run"}.get(row["status"], "not looked at")
            lines.append(f"[{row['number']}] {name}: {state}")
            continue
        lines.append(f"[{row['number']}] {name}")
        for word, wanted in (("reuse", True), ("make", False)):
            parts = [part(stage, row["number"]) for stage in row["stages"].items() if (stage in there) == wanted]
            lines += [f"    {word:<6}{', '.join(parts)}"] if parts else []
    return "\n".join([*lines, totals(rows, users, there)])


def totals(rows: list[dict], stages: dict[tuple[str, str], list[int]], there: set[tuple[str, str]]) -> str:
    """Return totals, such as '12 cells: 3 finished, 9 to run; will train 3 teachers, 9 students; reuses 2 pools'.

    Args:
        rows: as in `plan_in_words`.
        stages: numbers of the cells that use each stage (name, key).
        there: stages that exist in the store.
    """
    count = {status: sum(row["status"] == status for row in rows) for status in ("done", "planned", "failed")}
    counts = [f"{count['done']} finished", f"{count['planned']} to run"]
    counts += [f"{count['failed']} that cannot run"] if count["failed"] else []
    order = list(dict.fromkeys(name for row in rows for name in row.get("stages", ())))
    make, reuse = ([stage for stage in stages if (stage in there) == wanted] for wanted in (False, True))
    trained = count_by_name([stage for stage in make if stage[0] in TRAINED], order)
    others = count_by_name([stage for stage in make if stage[0] not in TRAINED], order)
    verbs = [f"{verb} {', '.join(of.values())}" for verb, of in (("train", trained), ("make", others)) if of]
    parts = [f"{plural(len(rows), 'cell')}: {', '.join(counts)}"]
    parts += [f"will {' and '.join(verbs)}"] if verbs else []
    parts += [f"reuses {', '.join(count_by_name(reuse, order).values())}"] if reuse else []
    return "; ".join(parts)


def count_by_name(stages: list[tuple[str, str]], order: Iterable[str]) -> dict[str, str]:
    """Count stages by name: {'teacher': '3 teachers', ...}.

    Args:
        stages: (name, key) each.
        order: names of stages, in the order of the result.
    """
    names = [name for name, _ in stages]
    return {name: plural(names.count(name), name) for name in order if name in names}


def plural(count: int, name: str) -> str:
    return f"{count} {name}" + ("s" if count != 1 else "")
