"""Make MNIST-M (Ganin et al., JMLR 2016, arXiv 1505.07818) from MNIST and a folder of photos.

    python scripts/make_mnistm.py --mnist DATA_ROOT --photos FOLDER --out DATA_ROOT/mnistm.npz

Every digit is blended with a random 28x28 patch of a photo: |patch - 255 * (digit > 0)| per channel. The original used
the photos of BSDS500; with other photos, or another random seed, it is a rebuilt MNIST-M and not the published file.
Train and test take their patches from different photos.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import MNIST

SUFFIXES = {".jpg", ".jpeg", ".png"}


def blend(digits: np.ndarray, photos: list[np.ndarray], seed: int) -> np.ndarray:
    """Digits (N, 28, 28), uint8, on patches of the photos: (N, 28, 28, 3), uint8."""
    random, out = np.random.RandomState(seed), np.empty((*digits.shape, 3), np.uint8)
    for i, digit in enumerate(digits):
        photo = photos[random.randint(len(photos))]
        top, left = random.randint(photo.shape[0] - 27), random.randint(photo.shape[1] - 27)
        patch = photo[top : top + 28, left : left + 28].astype(np.int16)
        out[i] = np.abs(patch - 255 * (digit > 0).astype(np.int16)[..., None])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, help="folder that torchvision keeps MNIST in")
    parser.add_argument("--photos", required=True, type=Path, help="folder of photos, at least 28 pixels a side")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    files = sorted(file for file in options.photos.rglob("*") if file.suffix.lower() in SUFFIXES)
    photos = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    photos = [photo for photo in photos if min(photo.shape[:2]) >= 28]
    if len(photos) < 2:
        parser.error(f"{options.photos} holds {len(photos)} photos of at least 28 pixels a side; two are needed")
    cut = max(1, len(photos) * 2 // 3)
    arrays = {}
    for part, chosen, seed in (("train", photos[:cut], 0), ("test", photos[cut:], 1)):
        source = MNIST(options.mnist, train=part == "train")
        arrays[f"x_{part}"] = blend(source.data.numpy(), chosen, seed)
        arrays[f"y_{part}"] = source.targets.numpy()
    np.savez_compressed(options.out, **arrays)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
