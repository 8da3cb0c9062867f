"""What was measured, as JSON and as a Markdown table."""

import platform
from pathlib import Path

import torch

from benchmark.measure import Bench, Goal, Row
from dfkd.report.text import markdown_table
from dfkd.run.provenance import commit


def machine(bench: Bench) -> dict:
    """Where it was measured."""
    device = bench.runtime.device
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return {
        "commit": commit(),
        "device": torch.cuda.get_device_name(device) if bench.cuda else cpu,
        "threads": torch.get_num_threads(),
        "precision": bench.runtime.precision,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def as_json(rows: list[Row], about: dict) -> dict:
    """Everything, for a machine to read."""
    return about | {
        "rows": [
            {
                "what": row.what,
                "against": row.against,
                "median": row.median,
                "values": row.values,
                "unit": row.unit or "ratio",
                "goal": row.goal and vars(row.goal),
                "met": row.met,
                "correct": row.correct,
                "checks": [vars(check) | {"passed": check.passed} for check in row.checks],
                "rates": row.rates,
            }
            for row in rows
        ]
    }


def as_markdown(rows: list[Row], about: dict) -> str:
    """A line of provenance and the table."""
    said = ", ".join(f"{key} {value}" for key, value in about.items() if key != "command")
    head = ["what", "against", "median", "min to max (n)", "goal", "met", "worst check: error (tolerance)"]
    rates = dict.fromkeys(f"{row.what}: {_rates(row)}." for row in rows if row.rates)
    return "\n".join([f"`{about['command']}`: {said}", "", markdown_table(head, map(_line, rows)), "", *rates]) + "\n"


def _rates(row: Row) -> str:
    return "; ".join(f"{name} {value:,.3g}" for name, value in row.rates.items())


def _line(row: Row) -> list[str]:
    unit = f" {row.unit}" if row.unit else ""
    wrong = [check for check in row.checks if not check.passed]
    nearest = sorted(row.checks, key=lambda check: check.error / (check.tolerance or 1))[-1:]  # to its tolerance
    checks = "; ".join(
        f"{'' if check.passed else '**WRONG** '}{check.what}: {check.error:.1e} ({check.tolerance:g})"
        for check in wrong or nearest
    )
    spread = f"{min(row.values):.2f} to {max(row.values):.2f} ({len(row.values)})"
    return [row.what, row.against, f"{row.median:.2f}{unit}", spread, *_goal(row.goal, row.met), checks]


def _goal(goal: Goal | None, met: bool) -> list[str]:
    if goal is None:
        return ["none", ""]
    return [f"{'≥' if goal.kind == 'at least' else '≤'} {goal.value:.4g}", "yes" if met else "**no**"]
