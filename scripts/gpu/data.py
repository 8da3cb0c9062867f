"""CIFAR-10 from where a machine without network has it: a folder of torchvision, an archive, or the pack of 18 MB."""

import io
import itertools
from pathlib import Path

import numpy as np
from PIL import Image

PACK, ARCHIVE, FOLDER = "cifar10_jpegq75_pack.npz", "cifar10.npz", "cifar-10-batches-py"


def options(where: Path, work: Path) -> list[str]:
    """Return the command-line options that choose CIFAR-10.

    Args:
        where: a folder with `cifar-10-batches-py` (torchvision's form), `cifar10.npz` (x_train, y_train, x_test,
            y_test) or the pack, or one of these files.
        work: folder into which a pack is unpacked.

    Raises:
        FileNotFoundError: there is none of them.
    """
    if (where / FOLDER).is_dir():
        return ["domain@ntl_scenario.id=cifar10", f"data.root={where}"]
    files = [where] if where.is_file() else [where / ARCHIVE, where / PACK]
    for file in (file for file in files if file.is_file()):
        with np.load(file) as arrays:
            archive = file if "x_train" in arrays else unpack(file, work)
        return ["domain@ntl_scenario.id=npz", f"ntl_scenario.id.path={archive}", "ntl_scenario.id.label=cifar10"]
    raise FileNotFoundError(f"there is no CIFAR-10 in {where}: neither {FOLDER}/ nor {ARCHIVE} nor {PACK}")


def unpack(pack: Path, work: Path) -> Path:
    """Write the archive of a pack: JPEG pictures that share one header, {train, test} as scan_*, len_* and y_*."""
    out = work / ARCHIVE
    if not out.exists():
        work.mkdir(parents=True, exist_ok=True)
        with np.load(pack) as arrays:
            parts = {f"y_{split}": arrays[f"y_{split}"] for split in ("train", "test")}
            parts |= {f"x_{split}": _pictures(arrays, split) for split in ("train", "test")}
        np.savez(out.with_suffix(".part.npz"), **parts)
        out.with_suffix(".part.npz").replace(out)
    return out


def _pictures(arrays: np.lib.npyio.NpzFile, split: str) -> np.ndarray:
    header, scans = arrays["header"].tobytes(), arrays[f"scan_{split}"].tobytes()
    ends = np.concatenate([[0], np.cumsum(arrays[f"len_{split}"].astype(np.int64))])
    files = (header + scans[a:b] + b"\xff\xd9" for a, b in itertools.pairwise(ends))
    return np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
