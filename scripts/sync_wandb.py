"""Upload the offline W&B runs of finished and failed cells: `wandb sync` on every one that it has not uploaded yet.

    python scripts/sync_wandb.py --outputs outputs [what else `wandb sync --help` knows]

A cell's run keeps its id: uploaded again after a retry, it replaces the one that failed.
"""

import argparse
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

try:
    import wandb
except ImportError:
    sys.exit("this needs Weights & Biases: pip install wandb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder of runs/")
    arguments, more = parser.parse_known_args()
    runs = sorted(map(str, arguments.outputs.glob("runs/*/wandb/offline-run-*")))
    if not runs:
        sys.exit(f"there are no offline runs in {arguments.outputs}/runs/*/wandb; name the folder with --outputs DIR")
    if "--dry-run" not in more:
        check_network(wandb.setup().settings.base_url)
    sys.exit(subprocess.run([sys.executable, "-m", "wandb", "sync", *more, *runs]).returncode)


def check_network(url: str) -> None:
    """Exit with a message if nothing answers: `wandb sync` would try again for many minutes."""
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as error:
        sys.exit(
            f"{url} cannot be reached ({getattr(error, 'reason', error)}): nothing was uploaded, the runs are kept"
        )


if __name__ == "__main__":
    main()
