"""Write the tables and the figure of a study into its page, docs/studies/NAME.md, from its finished cells: those in
--outputs, which join those that are kept in docs/measured/studies/NAME.jsonl.

dfkd -m ablation=study/parts outputs=outputs/studies/parts
python scripts/write_study.py parts                             `make study-parts` does both
"""

import argparse
import importlib
import sys
from pathlib import Path

from studies import kept
from studies.pages import Page, study_cells, write

from dfkd.errors import ConfigError

# {study: whose cells it reads}
STUDIES = {
    name: name
    for name in (
        *("boundary", "queries", "parts", "transformers", "robustness", "weights", "trap_images", "halves"),
        *("criteria", "leakage", "generators", "continual", "text", "escape"),
    )
} | {"flip_radius": "trap_images"}
CHAINS = {"continual"}  # whose cells are no grid, but made one after another by the script of this name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--outputs", type=Path, default=Path("outputs/studies"), help="parent of the studies' outputs")
    given = parser.parse_args()
    try:
        page, file = written(given.study, given.outputs / STUDIES[given.study])
    except (ConfigError, ValueError) as error:
        sys.exit(f"write_study: {error}")
    print(f"{page.text}\n\n{file}")


def written(study: str, outputs: Path) -> tuple[Page, Path]:
    """Join the finished cells in `outputs` to the kept ones, and return the page of all and the file it is written to.

    Raises:
        ConfigError: there are no cells.
        ValueError: the page cannot be made of these cells.
    """
    known = kept.read(STUDIES[study])
    finished, others = ([], []) if known and not outputs.exists() else study_cells(outputs)
    failed = [run for run in others if run.status == "failed" and run.config]
    cells = kept.joined(known, [*failed, *finished])
    done = [run for run in cells if run.done]
    try:
        page = importlib.import_module(f"studies.{study}").page(done)
    finally:
        kept.save(STUDIES[study], cells)  # also where a page cannot be made of them yet
    unfinished = [run for run in others if run not in failed]
    return page, write(study, page, done, [run for run in cells if not run.done] + unfinished)


if __name__ == "__main__":
    main()
