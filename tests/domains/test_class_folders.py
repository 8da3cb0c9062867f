"""What of a folder is an image of a class: everything else is counted and said, or refused by name."""

import os
from collections import Counter

import pytest
import torch
from PIL import Image

from dfkd.domains import image_folder
from dfkd.domains.class_folders import class_folders


@pytest.fixture
def folder(tmp_path):
    """Two classes of two images a part."""
    for part in ("train", "test"):
        for shade, name in ((0, "ant"), (255, "bee")):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                Image.new("L", (4, 4), abs(shade - number)).save(tmp_path / part / name / f"{number}.png")
    return tmp_path


def put(file, content=b"something"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".DS_Store", "1 x hidden file"),
        ("ant/.DS_Store", "1 x hidden file"),
        ("ant/._0.png", "1 x hidden file"),
        (".git/0.png", "1 x hidden folder"),
        ("ant/.ipynb_checkpoints/0.png", "1 x hidden folder"),
        ("__MACOSX/ant/0.png", "1 x __MACOSX folder"),
        ("ant/@eaDir/0.png", "1 x @eaDir folder"),
        ("ant/Thumbs.db", "1 x .db file"),
        ("ant/readme.txt", "1 x .txt file"),
        ("labels.csv", "1 x .csv file"),
        ("bee/LICENSE", "1 x file without a suffix"),
        ("bee/new.heic", "1 x .heic file"),
        ("bee/0.png.crdownload", "1 x .crdownload file"),
        ("loose.png", "1 x image outside of a class"),
    ],
)
def test_what_is_no_image_of_a_class_is_skipped_and_said(folder, name, said):
    put(folder / "train" / name)
    domain = image_folder(str(folder), size=4)
    assert domain.classes == 2 and len(domain.train) + len(domain.val) == 8
    assert domain.notes == [f"{folder}: skipped, as no images of a class: {said}"]


def test_all_that_is_skipped_is_said_in_one_line(folder):
    for name in ("a.txt", "b.TXT", "ant/c.txt", "ant/.hidden", "x.json"):
        put(folder / "test" / name)
    (note,) = image_folder(str(folder), size=4).notes
    assert "1 x .json file, 3 x .txt file, 1 x hidden file" in note


def test_folders_beside_train_and_test_are_named(folder):
    put(folder / "val" / "ant" / "0.png")
    put(folder / ".cache" / "0.png")
    assert image_folder(str(folder), size=4).notes[0].endswith("class: 1 x folder val beside train and test")


def test_a_tidy_folder_has_nothing_to_be_said(folder):
    assert image_folder(str(folder), size=4).notes == []


@pytest.mark.parametrize(
    "name", ["4.PNG", "4.JPEG", "4.jfif", "4.gif", "deep/er/4.png", "Ünï cödé 图.png", "4.tar.png"]
)
def test_images_of_every_name_and_depth_are_found(folder, name):
    file = folder / "train" / "ant" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(file, format="PNG")
    assert len(class_folders(folder / "train", Counter())["ant"]) == 5


def test_a_link_to_a_folder_above_does_not_multiply_the_images(folder):
    os.symlink(folder / "train" / "ant", folder / "train" / "ant" / "again")
    assert len(class_folders(folder / "train", Counter())["ant"]) == 4


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_without_images_is_named_with_what_was_skipped(folder, part):
    put(folder / part / "cow" / "notes.txt")
    with pytest.raises(FileNotFoundError, match=rf"{part} has classes without an image: cow.*1 x \.txt file"):
        image_folder(str(folder), size=4)


def test_in_which_classes_train_and_test_differ_is_said(folder):
    (folder / "test" / "bee").rename(folder / "test" / "wasp")
    with pytest.raises(ValueError, match=r"only train has bee; only test has wasp"):
        image_folder(str(folder), size=4)


def test_of_many_different_classes_some_are_named(folder):
    for number in range(8):
        (folder / "train" / f"c{number}").mkdir()
        Image.new("L", (4, 4)).save(folder / "train" / f"c{number}" / "0.png")
    with pytest.raises(ValueError, match=r"only train has c0, c1, c2, c3, c4 and 3 more$"):
        image_folder(str(folder), size=4)


def test_a_folder_without_the_two_parts_says_what_is_there(folder):
    (folder / "test").rename(folder / "val")
    with pytest.raises(FileNotFoundError, match=r"there is no .*test; expected .*test/<class>/; .* holds train, val"):
        image_folder(str(folder), size=4)


def test_images_in_no_folders_of_classes_are_told(folder):
    for file in (folder / "train" / "ant").iterdir():
        file.rename(folder / "train" / file.name)
    for name in ("ant", "bee"):
        for file in (folder / "train" / name).iterdir():
            file.unlink()
        (folder / "train" / name).rmdir()
    with pytest.raises(
        FileNotFoundError,
        match=r"no folders of classes \(4 x image outside of a class skipped\); expected .*train/<class>/",
    ):
        image_folder(str(folder), size=4)


def test_all_broken_images_are_counted_and_the_first_named(folder):
    for number in range(4):
        put(folder / "train" / "ant" / f"{number}.png", b"")
    with pytest.raises(ValueError, match=r"0\.png cannot be read.*2\.png cannot be read.*; 1 more of 8 images"):
        image_folder(str(folder), size=4)


def test_a_folder_that_may_not_be_read_is_named_and_not_skipped(folder, monkeypatch):
    scan = os.scandir  # by hand: an administrator may read everything

    def refuse(path):
        if str(path).endswith("ant"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="ant"):
        image_folder(str(folder), size=4)


def test_transparent_images_are_counted(folder):
    Image.new("LA", (4, 4), (0, 100)).save(folder / "test" / "ant" / "0.png")
    (note,) = image_folder(str(folder), size=4).notes
    assert note.endswith("transparent parts of 1 images were laid over white")


# Relative names of images; what is skipped stands among them.
ODD = (
    *("Zebra/1.png", "Zebra/10.png", "Zebra/2.png", "Zebra/b.PNG", "Zebra/B.png", "Zebra/a b.Jpeg", "Zebra/ä.bmp"),
    *("ant/x.png", "ant/a-b/y.png", "ant/a/b/y.png", "ant/a/z.ppm", "ant/A/a.tiff", "ant/a.b/c.d.webp"),
    *("Ant eater/.../no.txt", "Ant eater/0.pgm", "Ant eater/00.tif", "Ant eater/0.png.txt", "Ant eater/_.jpg"),
    *("10/a.png", "1/a.png", "2/a.png", "_1/a.png", "éclair/a.png", "train/test/train.png", "-/=.png"),
)


def test_an_image_folder_is_read_as_torchvision_reads_it(tmp_path):
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import pil_to_tensor

    random = torch.Generator().manual_seed(0)
    for part in ("train", "test"):
        for name in ODD:
            file = tmp_path / part / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".txt":
                file.write_text("something")
                continue
            pixels = torch.randint(256, (6, 6, 3), generator=random, dtype=torch.uint8).numpy()
            mode = random_mode(file.suffix, random)
            Image.fromarray(pixels).convert(mode).save(file)
    theirs, ours = ImageFolder(tmp_path / "test"), image_folder(str(tmp_path), size=6)
    found = class_folders(tmp_path / "test", Counter())
    assert list(found) == theirs.classes
    assert [str(file) for files in found.values() for file in files] == [file for file, _ in theirs.samples]
    assert ours.test.y.tolist() == theirs.targets
    assert torch.equal(ours.test.x, torch.stack([pil_to_tensor(image) for image, _ in theirs]))


def random_mode(suffix: str, random: torch.Generator) -> str:
    """A mode that files of this suffix can hold."""
    modes = {".png": ("L", "RGB", "P", "1"), ".PNG": ("L", "RGB", "P"), ".pgm": ("L",)}.get(suffix, ("RGB",))
    return modes[int(torch.randint(len(modes), (), generator=random))]
