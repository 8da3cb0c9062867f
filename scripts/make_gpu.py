"""Check a machine with a GPU, and measure the field's table on it: `make gpu DATA=DIR` (docs/gpu.md).

    python scripts/make_gpu.py --data DIR             both halves and the page
    python scripts/make_gpu.py right | field | page   one of them

The first half needs no data; of the second, what needs CIFAR-10 is left out without it.
Each half ends at its deadline, also at Ctrl-C, with what it has; the same command goes on from there.
"""

import argparse
import sys
from pathlib import Path

import torch
from gpu import about, clock, data, field, page, right, rows, speed, teachers, ways, whole

RIGHT, WAYS = 0.4, 0.25  # shares of the first half; the rest measures the speed
WHOLE = 0.4  # at most this share of the second half; the rest is the field's table


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["right", "field", "page", []], default=[])
    parser.add_argument("--data", type=Path, help="folder or file with CIFAR-10")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N; or cpu, for a trial")
    parser.add_argument("--minutes", type=float, nargs=2, default=[5.0, 9.0], metavar=("RIGHT", "FIELD"))
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"))
    parser.add_argument("--measured", type=Path, default=about.MEASURED)
    parser.add_argument("--page", type=Path, default=about.ROOT / "docs/gpu.md")
    parser.add_argument("--toy", action="store_true", help="sizes of seconds: tests this script, measures nothing")
    parser.add_argument("--only", default="", help="only rows of the first half whose name contains this")
    options = parser.parse_args(arguments)
    what = options.what or ["right", "field", "page"]
    trial = options.toy or not options.device.startswith("cuda")
    if what != ["page"] and trial and options.measured == about.MEASURED:
        parser.error("a trial leaves docs/measured alone; add --measured DIR --page FILE")
    if what != ["page"] and not trial and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu --toy --measured DIR --page FILE tries the script on a CPU")
    try:
        with rows.quiet():
            if "right" in what:
                half_one(options, clock.Deadline(60 * options.minutes[0]))
            if "field" in what:
                half_two(options, clock.Deadline(60 * options.minutes[1]))
    except KeyboardInterrupt:
        print("interrupted: what is done is kept, the same command goes on from there", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        readme = about.ROOT / "README.md" if options.measured == about.MEASURED else None
        page.write(options.measured, options.page, readme)


def half_one(options: argparse.Namespace, deadline: clock.Deadline) -> None:
    """Compare the device with the CPU, start runs in other ways, and measure the speed."""
    device, measured, only, seconds = options.device, options.measured, options.only, deadline.left
    right.run(device, clock.Deadline(RIGHT * seconds), measured / "right.json", only)
    ways.run(device, clock.Deadline(WAYS * seconds), measured / "ways.json", only, options.toy)
    speed.run(device, deadline, measured / "bench.json", only, options.toy)


def half_two(options: argparse.Namespace, deadline: clock.Deadline) -> None:
    """Compute whole cells in several ways, and the field's table; what needs CIFAR-10 is left out without it."""
    device, toy, out = options.device, options.toy, options.measured / "whole.json"
    first, found = clock.Deadline(WHOLE * deadline.left), cifar10(options)
    measures = whole.measures(device, first, options.out, toy)
    if found is not None:
        measures += teachers.measures(device, found, toy)
    rows.run(device, first, out, measures)
    if found is not None:
        cells = field.run(device, deadline, options.out / "field", options.measured, found, toy)
        rows.run(device, clock.Deadline(clock.GRACE), out, teachers.fast(cells))


def cifar10(options: argparse.Namespace) -> list[str] | None:
    """Return the options that choose CIFAR-10 (in a trial the digits), or None if it is not there, which is said."""
    if options.toy and options.data is None:
        return ["domain@ntl_scenario.id=digits"]
    try:
        return data.options(options.data or Path("data"), options.out)
    except FileNotFoundError as error:
        print(f"most of half 2 is left out: {error}; say --data DIR (make gpu DATA=DIR)", file=sys.stderr)
        return None


if __name__ == "__main__":
    main()
