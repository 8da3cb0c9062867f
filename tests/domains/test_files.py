import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from dfkd.domains import image_folder, npz


@pytest.fixture
def archive(tmp_path):
    """Write an archive of 20 + 8 images; the given arrays replace the usual ones (None leaves one out)."""

    def write(**given):
        rng = np.random.RandomState(0)
        arrays = {
            "x_train": rng.randint(0, 256, (20, 6, 6), dtype=np.uint8),
            "y_train": np.arange(20) % 4,
            "x_test": rng.randint(0, 256, (8, 6, 6), dtype=np.uint8),
            "y_test": np.arange(8) % 4,
        } | given
        np.savez(tmp_path / "mine.npz", **{key: value for key, value in arrays.items() if value is not None})
        return tmp_path / "mine.npz"

    return write


def test_grey_eight_bit_images(archive):
    domain = npz(str(archive()), val_share=0.2)
    assert (domain.name, domain.classes, domain.shape) == ("mine", 4, (1, 6, 6))
    assert (len(domain.train), len(domain.val), len(domain.test)) == (16, 4, 8)
    source = np.load(archive())
    assert torch.equal(domain.test.x[:, 0], torch.from_numpy(source["x_test"]))
    assert domain.test.y.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    together = torch.cat([domain.train.x, domain.val.x]).flatten(1).sum(1).sort().values
    assert together.tolist() == sorted(source["x_train"].reshape(20, -1).sum(1).tolist())


@pytest.mark.parametrize("shape", [(6, 6, 3), (3, 6, 6)])
def test_colour_images_in_either_order(archive, shape):
    rng = np.random.RandomState(1)
    x = [rng.randint(0, 256, (n, *shape), dtype=np.uint8) for n in (20, 8)]
    domain = npz(str(archive(x_train=x[0], x_test=x[1])))
    expected = x[1].transpose(0, 3, 1, 2) if shape[-1] == 3 else x[1]
    assert np.array_equal(domain.test.x.numpy(), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_images_in_the_unit_interval(archive, dtype):
    x = [np.random.RandomState(2).rand(n, 1, 6, 6).astype(dtype) for n in (20, 8)]
    domain = npz(str(archive(x_train=x[0], x_test=x[1])))
    assert domain.train.x.dtype == torch.float32
    assert np.allclose(domain.test.x.numpy(), x[1])


def test_size_channels_limit_classes_and_label(archive):
    domain = npz(str(archive()), classes=7, label="own", size=4, channels=3, limit=5)
    assert (domain.name, domain.classes, domain.shape) == ("own", 7, (3, 4, 4))
    assert (len(domain.train), len(domain.val), len(domain.test)) == (5, 2, 5)


def test_arrays_that_are_not_used_are_named(archive):
    assert npz(str(archive())).notes == []
    assert npz(str(archive(y_val=[1], x_val=[1]))).notes[0].endswith("arrays that are not used: x_val, y_val")


def test_labels_in_a_column_are_read(archive):
    assert npz(str(archive(y_test=(np.arange(8) % 4)[:, None]))).test.y.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y_test": None}, "lacks an array.*y_test"),
        ({"x_train": np.full((20, 6, 6), 1.5)}, "float images"),
        ({"x_train": np.full((20, 6, 6), -0.5)}, "float images"),
        ({"x_train": np.full((20, 6, 6), np.nan)}, "mine.npz"),
        ({"x_train": np.zeros((20, 36), np.uint8)}, r"shape \(36,\)"),
        ({"x_train": np.zeros((20, 6, 6, 5), np.uint8)}, "C = 1 or 3"),
        ({"y_train": np.arange(19) % 4}, "20 examples but 19 labels"),
        ({"y_train": np.arange(20) % 4 - 1}, "labels -1"),
        ({"y_train": np.arange(20) % 4 + 0.5}, "mine.npz.*label"),
    ],
)
def test_impossible_arrays_say_what_is_wrong(archive, given, message):
    with pytest.raises(ValueError, match=message):
        npz(str(archive(**given)), classes=4)


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def test_arrays_of_objects_are_refused_and_their_code_not_run(archive, tmp_path):
    objects = np.array([Malicious(tmp_path / "owned")], dtype=object)
    with pytest.raises(ValueError, match="cannot be read"):
        npz(str(archive(y_train=objects)))
    (tmp_path / "mine.npz").write_bytes(pickle.dumps(Malicious(tmp_path / "owned")))
    with pytest.raises(ValueError, match="cannot be read"):
        npz(str(tmp_path / "mine.npz"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "one array", "other zip"])
def test_a_file_that_is_no_archive_is_a_clear_error(archive, damage):
    file = archive()
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:300])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "text":
        file.write_text("no archive")
    elif damage == "one array":
        with file.open("wb") as stream:
            np.save(stream, np.zeros(3))
    else:
        with zipfile.ZipFile(file, "w") as other:
            other.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"mine\.npz"):
        npz(str(file))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.npz"):
        npz(str(tmp_path / "gone.npz"))


@pytest.fixture
def folder(tmp_path):
    """Image files of three classes, of several sizes and modes, the colour telling the class."""
    for part, count in (("train", 6), ("test", 2)):
        for number, name in enumerate(("ant", "bee", "cat")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                colour = tuple(200 * (number == channel) + 20 for channel in range(3))
                image = Image.new("RGB", (8 + i, 10), colour)
                image.save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def test_an_image_folder_is_read_with_the_classes_in_alphabetical_order(folder):
    domain = image_folder(str(folder), size=8)
    assert domain.shape == (3, 8, 8) and domain.classes == 3 and domain.name == folder.name
    assert len(domain.train) + len(domain.val) == 18 and len(domain.test) == 6
    for part in (domain.train, domain.val, domain.test):
        assert torch.equal(part.x.float().mean((2, 3)).argmax(1), part.y)
        assert part.x.dtype == torch.uint8


def test_an_image_folder_in_grey_and_limited(folder):
    domain = image_folder(str(folder), size=8, channels=1, limit=4)
    assert domain.shape == (1, 8, 8) and len(domain.train) == 4 and len(domain.test) == 4


def test_an_image_folder_needs_a_size_and_both_parts(folder, tmp_path):
    with pytest.raises(ValueError, match=r"data\.size"):
        image_folder(str(folder))
    with pytest.raises(FileNotFoundError, match="train"):
        image_folder(str(tmp_path / "nowhere"), size=8)
    (folder / "test" / "bee").rename(folder / "test" / "bug")
    with pytest.raises(ValueError, match=r"bee.*bug"):
        image_folder(str(folder), size=8)


def test_a_class_without_images_is_named(folder):
    for file in (folder / "train" / "bee").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="bee"):
        image_folder(str(folder), size=8)


def test_a_broken_image_is_a_clear_error(folder):
    (folder / "train" / "ant" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0\.png"):
        image_folder(str(folder), size=8)
