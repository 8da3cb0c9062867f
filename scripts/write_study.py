"""Write the tables and the figure of a study into its page, docs/studies/NAME.md, from its finished cells.

dfkd -m ablation=study/parts outputs=outputs/studies/parts
python scripts/write_study.py parts                             `make study-parts` does both
"""

import argparse
import importlib
import sys
from pathlib import Path

from studies.pages import study_cells, write

from dfkd.errors import ConfigError

# {study: whose cells it reads}
STUDIES = {
    name: name
    for name in (
        *("boundary", "queries", "parts", "transformers", "robustness", "weights", "trap_images", "halves"),
        *("criteria", "leakage", "generators", "continual", "text"),
    )
} | {"flip_radius": "trap_images"}
CHAINS = {"continual"}  # whose cells are no grid, but made one after another by the script of this name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--outputs", type=Path, default=Path("outputs/studies"), help="parent of the studies' outputs")
    given = parser.parse_args()
    try:
        finished, others = study_cells(given.outputs / STUDIES[given.study])
        page = importlib.import_module(f"studies.{given.study}").page(finished)
    except (ConfigError, ValueError) as error:
        sys.exit(f"write_study: {error}")
    print(f"{page.text}\n\n{write(given.study, page, finished, others)}")


if __name__ == "__main__":
    main()
