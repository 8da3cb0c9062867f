"""Make npz domains of VisDA-2017 or Office-Home from the folders they are published in. Nothing is downloaded.

    python scripts/make_domains.py visda FOLDER --out DIR          visda_train.npz, visda_validation.npz
    python scripts/make_domains.py office_home FOLDER --out DIR    office_home_art.npz, ..._real_world.npz, ...
    dfkd -m ntl_scenario=close_set teacher=ntl data.root=DIR defense=none,atesc \\
         domain@ntl_scenario.id=visda_train domain@ntl_scenario.ood=visda_validation

Classes are numbered in alphabetical order, the same for every domain of a set; images are squeezed to --size pixels a
side. Every domain is split into train and test by a seeded choice. As in the public NTL benchmark, at most 1,000 images
a class are taken (the first by name), at 64 pixels; the share of test images is the benchmark's, too.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = {".jpg", ".jpeg", ".png"}
# set: (folders of its domains, number of classes, where to get it)
SETS = {
    "visda": (("train", "validation"), 12, "http://ai.bu.edu/visda-2017/"),
    "office_home": (
        ("Art", "Clipart", "Product", "Real World"),
        65,
        "https://www.hemanthdv.org/officeHomeDataset.html",
    ),
}


def class_folders(domain: Path, count: int, source: str) -> list[Path]:
    """The class folders of one domain, in alphabetical order.

    Raises:
        FileNotFoundError: the folder is missing or does not hold `count` class folders.
    """
    if not domain.is_dir():
        raise FileNotFoundError(f"there is no {domain.resolve()}; unpack the set there first, it is at {source}")
    folders = sorted(folder for folder in domain.iterdir() if folder.is_dir())
    if len(folders) != count:
        names = ", ".join(folder.name for folder in folders[:5])
        raise FileNotFoundError(f"{domain} must hold {count} class folders, found {len(folders)} ({names} ...)")
    return folders


def read(folder: Path, size: int, limit: int) -> np.ndarray:
    """The first `limit` images of a folder by name, (N, size, size, 3), uint8."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)[:limit]
    if len(files) < 2:
        raise FileNotFoundError(f"{folder} holds {len(files)} images ({', '.join(sorted(SUFFIXES))}); two are needed")
    images = []
    for file in files:
        with Image.open(file) as image:
            images.append(np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(images)


def arrays_of(folders: list[Path], size: int, limit: int, test_share: float, seed: int) -> dict[str, np.ndarray]:
    """The four arrays of an npz domain; of every class at least one image goes to either part."""
    random, parts = np.random.RandomState(seed), {"train": [], "test": []}
    for label, folder in enumerate(folders):
        x = read(folder, size, limit)
        order = random.permutation(len(x))
        cut = min(max(1, round(test_share * len(x))), len(x) - 1)
        for part, chosen in (("test", order[:cut]), ("train", order[cut:])):
            parts[part].append((x[chosen], np.full(len(chosen), label)))
    arrays = {}
    for part, pairs in parts.items():
        arrays[f"x_{part}"], arrays[f"y_{part}"] = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("folder", type=Path, help="the folder that holds the set's domains as folders")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to: data.root")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--per-class", type=int, default=1000)
    parser.add_argument("--test-share", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    options = parser.parse_args()
    if options.size < 1 or options.per_class < 2 or not 0 < options.test_share < 1:
        parser.error("--size must be at least 1, --per-class at least 2, and --test-share lie in (0, 1)")
    domains, count, source = SETS[options.set]
    try:
        found = {name: class_folders(options.folder / name, count, source) for name in domains}
        names = [[folder.name for folder in folders] for folders in found.values()]
        if any(other != names[0] for other in names):
            raise FileNotFoundError(f"the domains {', '.join(domains)} do not have the same class folders")
        options.out.mkdir(parents=True, exist_ok=True)
        for name, folders in found.items():
            arrays = arrays_of(folders, options.size, options.per_class, options.test_share, options.seed)
            file = options.out / f"{options.set}_{name.lower().replace(' ', '_')}.npz"
            np.savez_compressed(file, **arrays)
            print(f"wrote {file}: {len(arrays['x_train'])} training and {len(arrays['x_test'])} test images")
    except OSError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
