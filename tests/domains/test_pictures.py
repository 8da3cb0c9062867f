"""Picture files of every mode: read by their range, or refused by name."""

import numpy as np
import pytest
import torch
from PIL import Image

from dfkd.domains import open_picture, read_picture

GREY = np.linspace(0, 1, 64).reshape(8, 8)
COLOUR = np.array(Image.new("RGB", (8, 8), (200, 30, 60)))


def picture(mode: str) -> Image.Image:
    """GREY in a mode of grey, COLOUR in one of colours."""
    if mode.startswith("I;16"):
        return Image.fromarray((GREY * 65535).round().astype(">u2" if mode.endswith("B") else "<u2"))
    if mode == "F":
        return Image.fromarray(GREY.astype(np.float32))
    grey = Image.fromarray((GREY * 255).round().astype(np.uint8))
    if mode in ("L", "LA"):
        return grey.convert(mode)
    return Image.fromarray(COLOUR).quantize() if mode == "P" else Image.fromarray(COLOUR).convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *[("L", suffix) for suffix in ("png", "tif", "bmp", "pgm", "jp2", "gif")],
        *[("LA", suffix) for suffix in ("png", "tif")],
        *[("I;16", suffix) for suffix in ("png", "tif", "pgm", "jp2")],
        ("I;16B", "tif"),
        *[("F", suffix) for suffix in ("tif", "pfm")],
    ],
)
def test_grey_of_every_depth_is_read_by_its_range(tmp_path, mode, suffix):
    file = tmp_path / f"grey.{suffix}"
    picture(mode).save(file)
    x, transparent = read_picture(file)
    assert x.shape == (3, 8, 8) and x.dtype == torch.uint8 and not transparent
    assert (x - torch.from_numpy(GREY * 255)).abs().max() <= 1
    assert torch.equal(read_picture(file, "L")[0], x[:1])


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *[("RGB", suffix) for suffix in ("png", "tif", "bmp", "ppm", "webp", "jpg")],
        *[("RGBA", suffix) for suffix in ("png", "tif", "webp")],
        *[("P", suffix) for suffix in ("png", "gif", "bmp", "tif")],
        *[("CMYK", suffix) for suffix in ("tif", "jpg")],
        ("YCbCr", "jpg"),  # its TIFF files are not read by every Pillow
    ],
)
def test_colours_of_every_mode_are_read(tmp_path, mode, suffix):
    file = tmp_path / f"colour.{suffix}"
    picture(mode).save(file)
    x, transparent = read_picture(file)
    assert (x.int() - torch.from_numpy(COLOUR).permute(2, 0, 1).int()).abs().max() <= 4  # JPEG rounds
    assert not transparent


def test_one_bit_is_black_and_white(tmp_path):
    Image.fromarray(GREY > 0.5).save(tmp_path / "bits.png")
    assert read_picture(tmp_path / "bits.png", "L")[0].unique().tolist() == [0, 255]


def test_ten_bits_of_sixteen_are_read_by_the_range_that_the_file_gives(tmp_path):
    values = (GREY * 1023).round().astype(">u2")
    (tmp_path / "grey.pgm").write_bytes(b"P5 8 8 1023\n" + values.tobytes())
    assert (read_picture(tmp_path / "grey.pgm", "L")[0][0] - torch.from_numpy(GREY * 255)).abs().max() <= 1


@pytest.mark.parametrize("how", ["RGBA", "LA", "palette", "colour"])
def test_what_is_transparent_is_laid_over_white(tmp_path, how):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, :2, 3] = 255  # the left half is black, the right one is not there
    image, more = Image.fromarray(pixels), {}
    if how == "LA":
        image = image.convert("LA")
    elif how == "palette":
        image = Image.fromarray((pixels[..., 3] == 0).astype(np.uint8), "L").convert("P")
        more = {"transparency": 1}
    elif how == "colour":
        image, more = Image.fromarray(np.where(pixels[..., 3:] > 0, 0, 9).astype(np.uint8).repeat(3, 2)), {}
        more = {"transparency": (9, 9, 9)}
    image.save(tmp_path / "cut.png", **more)
    x, transparent = read_picture(tmp_path / "cut.png")
    assert transparent and x[:, :, :2].max() == 0 and x[:, :, 2:].min() == 255


def test_a_photo_stands_as_its_exif_data_says(tmp_path):
    image, exif = Image.fromarray(np.r_[np.zeros((2, 8), np.uint8), np.full((2, 8), 255, np.uint8)]), Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn it by a quarter
    image.save(tmp_path / "photo.png", exif=exif)
    x = read_picture(tmp_path / "photo.png", "L")[0]
    assert x.shape == (1, 8, 4) and x[0, 0].tolist() == [255, 255, 0, 0]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_is_no_reason_to_refuse_a_picture(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "photo.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_picture(tmp_path / "photo.jpg")[0].shape == (3, 8, 8)


def save_frames(file):
    frames = [Image.new("L", (8, 8), value) for value in (0, 100, 200)]
    frames[0].save(file, save_all=True, append_images=frames[1:])


def save_half(file):
    save = Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8)).save
    save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        *[(f"moves.{suffix}", save_frames, "holds 3 frames; save each") for suffix in ("gif", "tif", "webp", "png")],
        *[(f"half.{suffix}", save_half, "cannot be read") for suffix in ("png", "jpg", "tif", "webp")],
        ("empty.png", lambda file: file.write_bytes(b""), "cannot be read"),
        ("text.png", lambda file: file.write_text("a text"), "cannot be read"),
        ("program.png", lambda file: file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "cannot be read"),
        ("deep.tif", lambda file: Image.fromarray((GREY * 1e6).astype(np.int32)).save(file), "32-bit.*8 or 16 bits"),
        ("hot.tif", lambda file: Image.fromarray((GREY * 255).astype(np.float32)).save(file), r"floats in 0\.\.255"),
        ("cold.tif", lambda file: Image.fromarray((GREY - 1).astype(np.float32)).save(file), r"floats in -1\.\.0"),
        ("nan.tif", lambda file: Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(file), r"floats in nan"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_rightly_is_refused_by_name(tmp_path, name, write, said):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}.*{said}"):
        read_picture(tmp_path / name)


def test_a_name_does_not_tell_what_a_file_holds(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "photo.jpg", format="PNG")
    assert open_picture(tmp_path / "photo.jpg").mode == "RGB"
