"""A known mean image of the training data."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from dfkd.domains import read_picture
from dfkd.priors.base import PriorTerm, View


class MeanImage(PriorTerm):
    """A set's images should have the training data's mean image, as far as somebody kept it.

        mean over channels and pixels of (mean_n x_n - m)^2,   m the given mean image

    in the teacher's normalised space. The first moment only, and of the set, not of each image: images may differ as
    they like as long as they do on average not.

    Args:
        path: a .safetensors or .npz file of one array, (C, H, W) or (H, W), uint8 or floats in [0, 1]; or a .png image.
        shape: (C, H, W) of the images.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds no image of this shape.
    """

    def __init__(self, path: str, shape: tuple[int, int, int], weight: float = 1.0):
        super().__init__(weight)
        self.image = read_image(path, shape)

    def __call__(self, view: View) -> Tensor:
        target = view.normalize(self.image.to(view.inputs.device)[None])
        return (view.inputs.unflatten(0, (view.sets, -1)).mean(1) - target).square().flatten(1).mean(1)


def read_image(path: str, shape: tuple[int, int, int]) -> Tensor:
    """One image (C, H, W), float32 in [0, 1]; arguments and errors as of `MeanImage`."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no mean image {file.resolve()}; give path=FILE (.safetensors, .npz or .png)")
    image = _array(file, shape[0])
    image = image[None] if image.ndim == 2 else image
    if image.shape != tuple(shape):
        raise ValueError(f"path={path} holds an image of shape {image.shape}, the images here are {tuple(shape)}")
    image = image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1)
    if not (image.min() >= 0 and image.max() <= 1):  # so that NaN is refused, too
        raise ValueError(f"path={path} holds values in {image.min():.3g}..{image.max():.3g}; use uint8, or [0, 1]")
    return torch.from_numpy(image)


def _array(file: Path, channels: int) -> np.ndarray:
    """What the file holds, channels first."""
    if file.suffix not in (".safetensors", ".npz", ".png"):
        raise ValueError(f"path={file} is none of .safetensors, .npz, .png")
    try:
        if file.suffix == ".png":
            return read_picture(file, "L" if channels == 1 else "RGB")[0].numpy()
        if file.suffix == ".safetensors":
            arrays = load_file(file)
        else:
            with np.load(file, allow_pickle=False) as archive:
                arrays = dict(archive)
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, SafetensorError) as error:
        raise ValueError(f"path={file} cannot be read as a mean image: {error}") from error
    if len(arrays) != 1:
        raise ValueError(f"path={file} must hold one array, got {', '.join(arrays) or 'none'}")
    return next(iter(arrays.values()))
