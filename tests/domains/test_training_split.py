"""Small, long-tailed and wrongly labelled training splits."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from runner import NOISE, make_cell

from dfkd.domains import Images, digits, image_folder, npz, textures
from dfkd.domains.training_split import alter_training, long_tailed, with_wrong_labels
from dfkd.errors import ConfigError
from dfkd.stages.checks import _check_training_split
from dfkd.stages.prepare import prepare


def images(*counts: int) -> Images:
    """`counts[k]` images of class k, mixed; an image is its own number."""
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    return Images(torch.arange(len(y)).float().view(-1, 1, 1, 1), y)


def counts_of(some: Images, classes: int) -> list[int]:
    return some.y.bincount(minlength=classes).tolist()


def test_a_long_tail_has_the_counts_of_cui_et_al():
    tail = long_tailed(images(*[500] * 10), 10, 100, seed=0)
    assert counts_of(tail, 10) == [round(500 * 100 ** (-k / 9)) for k in range(10)]  # 500, 300, ..., 5
    assert counts_of(long_tailed(images(7, 9, 8), 3, 1, seed=0), 3) == [7, 7, 7]


def test_a_class_that_is_small_already_limits_the_others():
    assert counts_of(long_tailed(images(100, 100, 20), 3, 4, seed=0), 3) == [80, 40, 20]


def test_a_choice_keeps_the_pairs_and_is_seeded():
    everything = images(30, 30, 30)
    tail, again, other = (long_tailed(everything, 3, 9, seed) for seed in (1, 1, 2))
    assert torch.equal(tail.x, again.x) and not torch.equal(tail.x, other.x)
    assert torch.equal(everything.y[tail.x.flatten().long()], tail.y) and len(tail.x.unique()) == len(tail)


def test_symmetric_noise_makes_that_share_wrong_and_every_wrong_class_equally_likely():
    labels = torch.arange(6000) % 4
    noisy = with_wrong_labels(labels, 4, 0.3, seed=0)
    wrong = noisy != labels
    assert wrong.sum() == 1800 and torch.equal(labels, torch.arange(6000) % 4)
    pairs = (4 * labels + noisy)[wrong].bincount(minlength=16).view(4, 4)
    assert pairs.diagonal().sum() == 0 and 100 < pairs[pairs > 0].min() <= pairs.max() < 200
    assert torch.equal(noisy, with_wrong_labels(labels, 4, 0.3, 0))
    assert not torch.equal(noisy, with_wrong_labels(labels, 4, 0.3, 1))


def test_the_options_work_together():
    altered = alter_training(images(50, 50), 2, 0, train_images=60, imbalance=5, label_noise=0.5)
    large, small = max(counts_of(altered, 2)), min(counts_of(altered, 2))
    assert large + small < 40 and small > 6  # of about 30 and 6 images, half have the other label
    untouched = images(5, 5)
    assert alter_training(untouched, 2, 0) is untouched


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"imbalance": 0.5}, "at least 1, got 0.5"),
        ({"imbalance": 50}, "imbalance=50 leaves class 1 without an image, because .* has \\[10, 10\\] images"),
        ({"label_noise": 1}, "in \\[0, 1\\), got 1"),
        ({"label_noise": -0.1}, "in \\[0, 1\\), got -0.1"),
        ({"train_images": 0}, "at least one image"),
    ],
)
def test_impossible_numbers_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        alter_training(images(10, 10), 2, 0, **options)


ALTERED = {"imbalance": 4, "label_noise": 0.1}


def archive(folder, **options):
    x, y = np.zeros((40, 8, 8), np.uint8), np.arange(40) % 2
    x[:] = np.arange(40)[:, None, None]
    np.savez(folder / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return npz(str(folder / "mine.npz"), **options)


def folders(folder, **options):
    for part in ("train", "test"):
        for number in range(40):
            file = folder / part / str(number % 2) / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), number).save(file)
    return image_folder(str(folder), size=8, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder, **options: digits(8, **options),
        lambda folder, **options: textures(8, **options),
        archive,
        folders,
    ],
    ids=["digits", "textures", "npz", "image_folder"],
)
def test_image_domains_alter_only_their_training_split(make, tmp_path):
    plain, altered = make(tmp_path), make(tmp_path, **ALTERED)
    for part in ("val", "test"):
        assert torch.equal(getattr(plain, part).x, getattr(altered, part).x)
        assert torch.equal(getattr(plain, part).y, getattr(altered, part).y)
    truth = {x.numpy().tobytes(): y for x, y in zip(plain.train.x, plain.train.y.tolist(), strict=True)}
    wrong = [truth[x.numpy().tobytes()] != y for x, y in zip(altered.train.x, altered.train.y.tolist(), strict=True)]
    assert sum(wrong) / len(wrong) == pytest.approx(0.1, abs=0.03) and len(altered.train) < 0.8 * len(plain.train)


def test_the_options_are_in_the_keys_only_where_they_are_set(tmp_path):
    plain = make_cell(tmp_path, *NOISE)
    assert {"train_images", "imbalance", "label_noise"} <= plain.config["ntl_scenario"]["id"].keys()
    older = json.loads(json.dumps(plain.content()))
    for option in ("train_images", "imbalance", "label_noise"):
        del older["ntl_scenario"]["id"][option]
        assert make_cell(tmp_path, *NOISE, f"ntl_scenario.id.{option}=2").hash != plain.hash
    assert plain.key("student", 1, older) == plain.key("student", 1, plain.content())


@pytest.mark.parametrize(("domain", "at"), [("digits", "id"), ("textured", "id.of")])
def test_a_teacher_that_is_not_trained_here_sees_no_training_labels(tmp_path, domain, at):
    options = (
        f"ntl_scenario.{at}.label_noise=0.2",
        f"ntl_scenario.{at}.imbalance=10",
        f"ntl_scenario.{at}.train_images=9",
    )
    cell = make_cell(tmp_path, *NOISE, f"domain@ntl_scenario.id={domain}", *options)
    problems: list[str] = []
    _check_training_split(cell.config, problems)
    assert [text.partition(" ")[0] for text in problems] == [
        f"ntl_scenario.{at}.imbalance=10",
        f"ntl_scenario.{at}.label_noise=0.2",
    ]


def test_a_checkpoint_refuses_them(tmp_path, trained):
    torch.save(trained.net.state_dict(), tmp_path / "teacher.pt")
    checkpoint = ("teacher=checkpoint", f"teacher.path={tmp_path / 'teacher.pt'}", "teacher.mean=[0.5]", "data.size=8")
    network = ("teacher.std=[0.5]", "teacher.network.widths=[8,16,32]", "ntl_scenario.id.label_noise=0.2")
    with pytest.raises(
        ConfigError, match="changes what a teacher is trained on, and teacher=checkpoint is not trained"
    ):
        prepare(make_cell(tmp_path, *NOISE, *checkpoint, *network))
