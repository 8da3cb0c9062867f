"""Reads image files of any mode as 8-bit images."""

import contextlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

# Formats that Pillow may use, whatever the file's suffix. Others (EPS, PDF, ...) start programs or are not images.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SIXTEEN_BITS = ("PNG", "PPM")  # formats whose 32-bit mode 'I' holds 16-bit numbers
UNUSABLE = "cannot be used:"


def open_picture(file: str | Path) -> Image.Image:
    """Open an image file as a Pillow image with 8 bits per channel, rotated as its EXIF data says.

    16-bit grey in 0..65535 and floats in [0, 1] are scaled to 8-bit grey.

    Returns:
        an image of mode L, RGB, RGBA or another mode of 8 bits.

    Raises:
        ValueError: the file is damaged or is not an image, has several frames, or has pixels of an unknown range. The
            message names the file and how to convert it.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            frames, format = getattr(image, "n_frames", 1), image.format
            image.load()
    except Exception as error:  # a damaged file raises too many different types to list
        raise ValueError(f"{file} cannot be read as an image: {str(error) or type(error).__name__}") from error
    if frames > 1 and format != "MPO":  # an MPO file of a camera has a photo and its preview as frames
        raise ValueError(f"{file} {UNUSABLE} it holds {frames} frames; save each as an image of its own")
    with contextlib.suppress(Exception):  # an image with damaged EXIF data is still usable
        image = ImageOps.exif_transpose(image)
    return _eight_bits(image, file, format)


def _eight_bits(image: Image.Image, file: str | Path, format: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and format in SIXTEEN_BITS):
        return Image.fromarray((np.asarray(image).astype(np.float32) / 257).round().astype(np.uint8))
    if image.mode == "I":
        raise ValueError(f"{file} {UNUSABLE} the range of its 32-bit numbers is not known; save it with 8 or 16 bits")
    if image.mode == "F":
        x = np.asarray(image)
        if not (x.min() >= 0 and x.max() <= 1):  # in this form, NaN is refused, too
            raise ValueError(
                f"{file} {UNUSABLE} it holds floats in {x.min():.3g}..{x.max():.3g}; bring them to [0, 1], or save "
                f"it with 8 bits"
            )
        return Image.fromarray((x * 255).round().astype(np.uint8))
    return image


def read_picture(file: str | Path, mode: str = "RGB") -> tuple[Tensor, bool]:
    """Read an image file in colour (mode 'RGB') or grey ('L').

    Returns:
        the image (C, H, W), uint8, with transparent parts composited over white; whether there were any.

    Raises:
        ValueError: see `open_picture`.
    """
    image = open_picture(file)
    shows_through = False
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = _converted(image, "RGBA", file)
        shows_through = image.getchannel("A").getextrema()[0] < 255
        if shows_through:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = torch.from_numpy(np.array(_converted(image, mode, file)))
    return pixels.permute(2, 0, 1) if mode == "RGB" else pixels[None], shows_through


def _converted(image: Image.Image, mode: str, file: str | Path) -> Image.Image:
    try:
        return image.convert(mode)
    except ValueError as error:
        raise ValueError(f"{file} {UNUSABLE} its colours are {image.mode}; save it as RGB") from error
