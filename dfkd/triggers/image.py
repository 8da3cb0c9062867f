"""A user's own image as the trigger."""

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dfkd.domains import fit_images, open_picture


class Image:
    """A picture blended over images x, (1 - ratio m) x + ratio m * picture, with a mask m in [0, 1].

    Picture and mask are resized to the size of the images, and the picture is converted to their channels.

    Args:
        path: an image file (PNG, ...), or a safetensors file with `image` (C, H, W) in [0, 1] and optionally `mask`
            (H, W) in [0, 1].
        mask: {'path': a grey image file, or a safetensors file with `mask`}. If the path is null, the mask comes from
            the file of the picture: its alpha channel, or `mask`; if there is none, it is 1 everywhere.
        ratio: opacity, in (0, 1].

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file has no picture or mask of this form, or ratio is out of range.
    """

    def __init__(self, path: str, mask: dict | None = None, ratio: float = 1.0):
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must lie in (0, 1], got {ratio}")
        self.ratio = ratio
        self.picture, own = _read(path)
        other = (mask or {}).get("path")
        self.mask = own if other is None else _read_mask(other)

    def __call__(self, images: Tensor) -> Tensor:
        size, channels = images.shape[2:], images.shape[1]
        if size[0] != size[1]:
            raise ValueError(f"an image trigger needs square images, got {size[0]}x{size[1]}")
        picture = fit_images(self.picture[None], size[0], channels)[0]
        mask = self.ratio * fit_images(self.mask[None, None], size[0], None)[0]
        picture, mask = (value.clamp(0, 1).to(images) for value in (picture, mask))
        return (1 - mask) * images + mask * picture


def _read(path: str) -> tuple[Tensor, Tensor]:
    """Read the picture (C, H, W), C = 1 or 3, and the mask (H, W) from a file."""
    if Path(path).suffix == ".safetensors":
        tensors = _tensors(path, "image")
        picture = tensors["image"].float()
        if picture.dim() != 3 or picture.shape[0] not in (1, 3):
            raise ValueError(f"{path}: image must be (1, H, W) or (3, H, W), got {tuple(picture.shape)}")
        mask = tensors.get("mask", torch.ones(picture.shape[1:])).float()
    else:
        rgba = _pixels(path, "RGBA")
        picture, mask = rgba[:3], rgba[3]
    for name, value in (("image", picture), ("mask", mask)):
        _require_unit(f"{path}: {name}", value)
    if mask.dim() != 2:
        raise ValueError(f"{path}: mask must be (H, W), got {tuple(mask.shape)}")
    return picture, mask


def _read_mask(path: str) -> Tensor:
    """Read the mask (H, W) from a file."""
    mask = _tensors(path, "mask")["mask"].float() if Path(path).suffix == ".safetensors" else _pixels(path, "L")[0]
    if mask.dim() != 2:
        raise ValueError(f"{path}: mask must be (H, W), got {tuple(mask.shape)}")
    _require_unit(f"{path}: mask", mask)
    return mask


def _require_unit(what: str, value: Tensor) -> None:
    if not (value.min() >= 0 and value.max() <= 1):  # in this form, NaN is refused, too
        raise ValueError(f"{what} must lie in [0, 1], got {value.min():.3g}..{value.max():.3g}")


def _tensors(path: str, wanted: str) -> dict[str, Tensor]:
    _require_file(path)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    if wanted not in tensors:
        raise ValueError(f"{path} holds no '{wanted}', only {', '.join(sorted(tensors)) or 'nothing'}")
    return tensors


def _pixels(path: str, mode: str) -> Tensor:
    """Read an image file as (C, H, W) in [0, 1], C the number of channels of the mode."""
    _require_file(path)
    x = np.array(open_picture(path).convert(mode))
    return torch.from_numpy(x.reshape(*x.shape[:2], -1)).permute(2, 0, 1).float() / 255


def _require_file(path: str) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no {Path(path).resolve()}; give trigger.path=FILE.png or FILE.safetensors")
