import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import save_file

from dfkd.triggers import Image

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def picture(tmp_path) -> str:
    """A red picture of 8x8 pixels, transparent in its left half."""
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., :3] = RED
    rgba[:, 4:, 3] = 255
    Pillow.fromarray(rgba).save(tmp_path / "red.png")
    return str(tmp_path / "red.png")


def test_a_pictures_alpha_channel_is_the_mask(picture):
    stamped = Image(picture)(torch.full((2, 3, 8, 8), 0.5))
    expected = torch.full((2, 3, 8, 8), 0.5)
    expected[:, :, :, 4:] = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert torch.allclose(stamped, expected)


def test_the_ratio_blends(picture):
    stamped = Image(picture, ratio=0.2)(torch.full((1, 3, 8, 8), 0.5))
    assert stamped[0, :, 0, 7].tolist() == pytest.approx([0.8 * 0.5 + 0.2, 0.4, 0.4])
    assert stamped[0, :, 0, 0].tolist() == pytest.approx([0.5] * 3)


def test_the_picture_is_fitted_to_size_and_channels(picture):
    stamped = Image(picture)(torch.zeros(1, 1, 16, 16))
    assert stamped.shape == (1, 1, 16, 16)
    assert stamped[0, 0, 8, 15].item() == pytest.approx(0.299, abs=1e-3)  # red's luma
    assert stamped[0, 0, 8, 0].item() == 0


def test_a_mask_file_of_its_own_takes_the_masks_place(picture, tmp_path):
    mask = np.zeros((8, 8), np.uint8)
    mask[0] = 255
    Pillow.fromarray(mask).save(tmp_path / "mask.png")
    stamped = Image(picture, mask={"path": str(tmp_path / "mask.png")})(torch.zeros(1, 3, 8, 8))
    assert stamped[0, 0].tolist() == [[1.0] * 8] + [[0.0] * 8] * 7


def test_tensors_with_and_without_a_mask(tmp_path):
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.eye(8)
    save_file({"image": image, "mask": mask}, tmp_path / "both.safetensors")
    save_file({"image": image}, tmp_path / "image.safetensors")
    x = torch.full((2, 3, 8, 8), 0.25)
    assert torch.allclose(Image(str(tmp_path / "both.safetensors"))(x), (1 - mask) * x + mask * image)
    assert torch.allclose(Image(str(tmp_path / "image.safetensors"), ratio=0.5)(x), 0.5 * x + 0.5 * image)
    other = Image(str(tmp_path / "image.safetensors"), {"path": str(tmp_path / "both.safetensors")})
    assert torch.allclose(other(x), (1 - mask) * x + mask * image)


def test_bad_files_are_named(picture, tmp_path):
    def saved(name: str, **tensors) -> str:
        save_file(tensors, tmp_path / name)
        return str(tmp_path / name)

    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "text.safetensors").write_text("no tensors")
    for path, said in (
        (str(tmp_path / "text.png"), "text.png cannot be read"),
        (str(tmp_path / "text.safetensors"), "text.safetensors cannot be read"),
        (saved("a.safetensors", mask=torch.ones(2, 2)), "holds no 'image', only mask"),
        (saved("b.safetensors", image=torch.ones(2, 2)), r"image must be .*\(2, 2\)"),
        (saved("c.safetensors", image=torch.full((1, 2, 2), 255.0)), r"image must lie in \[0, 1\], got 255"),
        (saved("d.safetensors", image=torch.ones(1, 2, 2), mask=torch.ones(1, 2, 2)), "mask must be"),
    ):
        with pytest.raises(ValueError, match=said):
            Image(path)
    with pytest.raises(FileNotFoundError, match=r"no\.png"):
        Image(str(tmp_path / "no.png"))
    with pytest.raises(ValueError, match=r"ratio .*1\.5"):
        Image(picture, ratio=1.5)
    with pytest.raises(ValueError, match="8x4"):
        Image(picture)(torch.zeros(1, 3, 8, 4))


def test_a_sixteen_bit_picture_and_mask_keep_their_greys(tmp_path):
    deep = np.full((8, 8), 0.25 * 65535).astype(np.uint16)
    Pillow.fromarray(deep).save(tmp_path / "deep.png")
    trigger = Image(str(tmp_path / "deep.png"), mask={"path": str(tmp_path / "deep.png")})
    assert torch.allclose(trigger(torch.zeros(1, 1, 8, 8)), torch.full((1, 1, 8, 8), 0.25**2), atol=2e-3)
