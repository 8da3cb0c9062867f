"""Picture files of whatever mode as 8-bit pictures."""

import contextlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

# What Pillow may take a file for, whatever its name says: others (EPS, PDF, ...) start programs or are no pictures.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SIXTEEN_BITS = ("PNG", "PPM")  # formats whose 32-bit mode 'I' holds 16-bit numbers
UNUSABLE = "cannot be used:"


def open_picture(file: str | Path) -> Image.Image:
    """A picture file as Pillow's picture with 8 bits a channel, turned upright as its EXIF data says.

    16-bit grey becomes 8-bit grey by the range 0..65535, and floats by the range [0, 1].

    Returns:
        of mode L, RGB, RGBA or another one of 8 bits.

    Raises:
        ValueError: the file is damaged or no picture, holds several frames, or numbers of a range that nobody knows.
            The message names the file and what to convert.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            frames, format = getattr(image, "n_frames", 1), image.format
            image.load()
    except Exception as error:  # a damaged file fails in too many ways to name
        raise ValueError(f"{file} cannot be read as an image: {str(error) or type(error).__name__}") from error
    if frames > 1 and format != "MPO":  # a camera's MPO is a photo and a preview of it
        raise ValueError(f"{file} {UNUSABLE} it holds {frames} frames; save each as an image of its own")
    with contextlib.suppress(Exception):  # damaged EXIF data is no reason to refuse a picture
        image = ImageOps.exif_transpose(image)
    return _eight_bits(image, file, format)


def _eight_bits(image: Image.Image, file: str | Path, format: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and format in SIXTEEN_BITS):
        return Image.fromarray((np.asarray(image).astype(np.float32) / 257).round().astype(np.uint8))
    if image.mode == "I":
        raise ValueError(f"{file} {UNUSABLE} the range of its 32-bit numbers is not known; save it with 8 or 16 bits")
    if image.mode == "F":
        x = np.asarray(image)
        if not (x.min() >= 0 and x.max() <= 1):  # so that NaN is refused, too
            raise ValueError(
                f"{file} {UNUSABLE} it holds floats in {x.min():.3g}..{x.max():.3g}; bring them to [0, 1], or save "
                f"it with 8 bits"
            )
        return Image.fromarray((x * 255).round().astype(np.uint8))
    return image


def read_picture(file: str | Path, mode: str = "RGB") -> tuple[Tensor, bool]:
    """A picture file in colour (mode 'RGB') or grey ('L').

    Returns:
        the picture (C, H, W), uint8; whether some of it is transparent: that was laid over white.

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
