"""Where and with what something was measured, and the files that say so."""

import functools
import json
import platform
import time
from pathlib import Path

import torch

from dfkd.run.provenance import commit
from dfkd.store.files import write_atomic

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT / "docs" / "measured"  # one file a cell, and one of the first half


@functools.cache
def machine(device: str) -> dict[str, str | None]:
    """Return the card (or the processor), the versions, the commit and the date of a measurement, as they are when this
    process first asks for them."""
    card = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"CPU ({platform.machine()})"
    return {
        "card": card,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def write(path: Path, content: dict) -> None:
    """Write a JSON file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(content, indent=2) + "\n")


def read(path: Path) -> dict | None:
    """Return the content of a JSON file, or None if there is none."""
    return json.loads(path.read_text()) if path.exists() else None
