"""Measure the project's fast paths against bare loops: ratios, in one process, on the same tensors, checked.

    python scripts/bench.py                          2 CPU cores: under 10 minutes; `make bench`
    python scripts/bench.py --device cuda            larger sizes
    python scripts/bench.py --only cnn_synthesis dfq

Writes bench.json and bench.md to --out. Fails if a fast path gives another result than the plain one; a missed goal is
reported, no failure. Alone on the machine, or the ratios mean little.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path

from benchmark import cake, commands, rounds, table, training, views
from benchmark.measure import Bench, Row

from dfkd.machine.precision import float32_arithmetic
from dfkd.machine.runtime import make_runtime

CASES = {
    "cnn_synthesis": cake.cnn_synthesis,
    "resnet_synthesis": cake.resnet_synthesis,
    "matrix_product": cake.matrix_product,
    "student": training.student,
    "views": views.views,
    "replicas": training.replicas,
    "teacher": training.teacher,
    "generator": rounds.generator,
    "dfq": rounds.dfq,
    "atesc": rounds.atesc,
    "bn_prior": cake.bn_prior,
    "grid": commands.grid,
    "side_by_side": commands.side_by_side,
    "memory": commands.memory,
    "first_seconds": commands.first_seconds,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N")
    parser.add_argument("--precision", default="auto", help="of the fast paths: auto, float32, tf32, bfloat16")
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), default=list(CASES), metavar="CASE")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--toy", action="store_true", help="sizes of seconds: tests the benchmark, measures nothing")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    try:
        runtime = make_runtime(options.device, options.precision)
    except ValueError as error:
        parser.error(str(error))
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out, ignore_cleanup_errors=True) as folder:
        bench = Bench(runtime, options.repeats, options.toy, Path(folder))
        found = measure(bench, options.only)
        about = {"command": shlex.join(["python", "scripts/bench.py", *sys.argv[1:]])} | table.machine(bench)
    (options.out / "bench.json").write_text(json.dumps(table.as_json(found, about), indent=2) + "\n")
    (options.out / "bench.md").write_text(table.as_markdown(found, about))
    print(table.as_markdown(found, about))
    wrong = [row.what for row in found if not row.correct]
    if wrong:
        sys.exit(f"a fast path differs from the plain one: {', '.join(dict.fromkeys(wrong))}")


def measure(bench: Bench, names: list[str]) -> list[Row]:
    """The rows of the named cases, in the table's order."""
    found = []
    for name in (name for name in CASES if name in names):
        began = time.monotonic()
        with float32_arithmetic("ieee"):  # the plain float32 computations are to be exact
            rows = CASES[name](bench)
        found += rows
        said = ", ".join(f"{row.median:.2f}{'' if row.met else ' (goal missed)'}" for row in rows)
        print(f"{name:16s} {said}  [{time.monotonic() - began:.0f} s]", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main()
