"""A prior for the case that the mean image of the training data is known."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from dfkd.domains import read_picture
from dfkd.priors.base import PriorTerm, TeacherPass


class MeanImage(PriorTerm):
    """Squared distance between the mean image of a set and a given mean image m of the training data.

        mean over channels and pixels of (mean_n x_n - m)^2

    in the teacher's normalised space. It constrains only the mean over the set; single images may differ from m.

    Args:
        path: a .safetensors or .npz file of one array, (C, H, W) or (H, W), uint8 or floats in [0, 1]; or a .png image.
        shape: (C, H, W) of the images.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be read, or contains no image of this shape.
    """

    def __init__(self, path: str, shape: tuple[int, int, int], weight: float = 1.0):
        super().__init__(weight)
        self.image = read_image(path, shape)

    def __call__(self, teacher_pass: TeacherPass) -> Tensor:
        target = teacher_pass.normalize(self.image.to(teacher_pass.inputs.device)[None])
        return (teacher_pass.inputs.unflatten(0, (teacher_pass.sets, -1)).mean(1) - target).square().flatten(1).mean(1)


def read_image(path: str, shape: tuple[int, int, int]) -> Tensor:
    """Read one image (C, H, W), float32 in [0, 1]; arguments and errors as in `MeanImage`."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no mean image {file.resolve()}; give path=FILE (.safetensors, .npz or .png)")
    image = _array(file, shape[0])
    image = image[None] if image.ndim == 2 else image
    if image.shape != tuple(shape):
        raise ValueError(f"path={path} holds an image of shape {image.shape}, the images here are {tuple(shape)}")
    image = image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1)
    if not (image.min() >= 0 and image.max() <= 1):  # in this form, NaN is refused, too
        raise ValueError(f"path={path} holds values in {image.min():.3g}..{image.max():.3g}; use uint8, or [0, 1]")
    return torch.from_numpy(image)


def _array(file: Path, channels: int) -> np.ndarray:
    """Read the array of the file, channels first."""
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
