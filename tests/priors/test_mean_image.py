import numpy as np
import pytest
import torch
from PIL import Image
from runner import make_cell
from safetensors.torch import save_file

from dfkd.errors import ConfigError
from dfkd.models import Teacher, cnn_bn
from dfkd.priors import MeanImage, Prior
from dfkd.stages.prepare import prepare


@pytest.fixture
def mean() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)


def test_the_distance_is_that_of_the_sets_mean_from_the_given_one(mean, random, tmp_path):
    np.savez(tmp_path / "mean.npz", mean)
    teacher = Teacher(cnn_bn((3, 8, 8), 3, widths=(4,)), (3, 8, 8), 3, [0.4, 0.5, 0.6], [0.2, 0.25, 0.5])
    images = torch.rand(5, 3, 8, 8, generator=random)
    prior = Prior({"mean_image": MeanImage(str(tmp_path / "mean.npz"), (3, 8, 8), weight=2.0)})
    value = prior(prior.run_teacher(teacher, teacher.normalize(images)))["mean_image"]
    total = 0.0
    for c, std in enumerate((0.2, 0.25, 0.5)):
        for i in range(8):
            for j in range(8):
                average = sum(images[n, c, i, j].item() for n in range(5)) / 5
                total += ((average - mean[c, i, j] / 255) / std) ** 2
    assert value.item() == pytest.approx(2 * total / (3 * 8 * 8), rel=1e-4)


def test_every_kind_of_file_gives_the_same_image(mean, tmp_path):
    np.savez(tmp_path / "a.npz", mean=mean)
    save_file({"any": torch.from_numpy(mean).float() / 255}, tmp_path / "b.safetensors")
    Image.fromarray(mean.transpose(1, 2, 0)).save(tmp_path / "c.png")
    found = [MeanImage(str(tmp_path / name), (3, 8, 8)).image for name in ("a.npz", "b.safetensors", "c.png")]
    for image in found:
        assert image.dtype == torch.float32
        assert torch.allclose(image, torch.from_numpy(mean).float() / 255)


def test_grey_images_need_no_channel_axis(mean, tmp_path):
    np.savez(tmp_path / "a.npz", mean[0])
    Image.fromarray(mean[0]).save(tmp_path / "c.png")
    for name in ("a.npz", "c.png"):
        image = MeanImage(str(tmp_path / name), (1, 8, 8)).image
        assert torch.allclose(image[0], torch.from_numpy(mean[0]).float() / 255)


def test_what_is_no_mean_image_is_refused(mean, tmp_path):
    def refused(name: str, message: str, error: type = ValueError) -> None:
        with pytest.raises(error, match=message):
            MeanImage(str(tmp_path / name), (3, 8, 8))

    refused("none.npz", r"no mean image .*none\.npz", FileNotFoundError)
    np.savez(tmp_path / "small.npz", mean[:, :4])
    refused("small.npz", r"small\.npz.*\(3, 4, 8\).*\(3, 8, 8\)")
    np.savez(tmp_path / "two.npz", a=mean, b=mean)
    refused("two.npz", "one array, got a, b")
    np.savez(tmp_path / "large.npz", mean.astype(np.float32))
    refused("large.npz", "values in 0.*use uint8")
    np.savez(tmp_path / "nan.npz", np.full((3, 8, 8), np.nan))
    refused("nan.npz", "values in nan")
    np.savez(tmp_path / "object.npz", np.array([object()]))
    refused("object.npz", "cannot be read")
    for name in ("bad.npz", "bad.safetensors", "bad.png"):
        (tmp_path / name).write_bytes(b"no image of any kind")
        refused(name, f"{name}.*cannot be read")
    (tmp_path / "mean.txt").write_text("0.5")
    refused("mean.txt", "none of")


def test_the_option_asks_for_its_file_and_counts_its_content(tmp_path):
    def cell(path: str | None):
        return make_cell(tmp_path, "prior=mean_image", *([f"prior.mean_image.path={path}"] if path else []))

    with pytest.raises(ConfigError, match=r"prior\.mean_image\.path"):
        cell(None)
    with pytest.raises(ConfigError, match=r"prior\.mean_image: there is no mean image .*none\.png"):
        prepare(cell(tmp_path / "none.png"))
    hashes = []
    for value in (0, 255):
        Image.fromarray(np.full((16, 16), value, dtype=np.uint8)).save(tmp_path / "mean.png")
        found = cell(tmp_path / "mean.png")
        hashes.append(found.hash)
        assert (prepare(found).synthesizer.prior.terms["mean_image"].image == value / 255).all()
    assert hashes[0] != hashes[1]


def test_a_sixteen_bit_picture_keeps_its_greys(tmp_path):
    Image.fromarray(np.full((8, 8), 0.25 * 65535).astype(np.uint16)).save(tmp_path / "deep.png")
    for channels in (1, 3):
        image = MeanImage(str(tmp_path / "deep.png"), (channels, 8, 8)).image
        assert torch.allclose(image, torch.full((channels, 8, 8), 0.25), atol=2e-3)
