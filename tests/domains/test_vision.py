import struct

import numpy as np
import pytest
import torch

from dfkd.domains import vision


@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST", "USPS", "SVHN", "CIFAR10", "CIFAR100", "STL10"])
def test_missing_data_are_not_downloaded_silently(tmp_path, dataset):
    root = tmp_path / "data"
    with pytest.raises(FileNotFoundError, match=rf"{dataset} is not in .*data; .*data\.root.*data\.download=true"):
        vision(dataset, str(root), download=False)
    assert not root.exists() or not any(path.is_file() for path in root.rglob("*"))


def test_an_unknown_data_set_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"'MNISTT'.*MNIST"):
        vision("MNISTT", str(tmp_path), download=False)


@pytest.fixture
def mnist(tmp_path):
    """Files in MNIST's format with 40 + 12 images whose pixels are their label."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, count in (("train", 40), ("t10k", 12)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.repeat(labels, 28 * 28)
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, count) + labels.tobytes())
    return str(tmp_path)


def test_data_that_are_there_are_read_split_and_normalised_as_asked(mnist):
    domain = vision("MNIST", mnist, download=False, mean=[0.1307], std=[0.3081])
    assert (domain.name, domain.classes, domain.shape) == ("mnist", 10, (1, 28, 28))
    assert (len(domain.train), len(domain.val), len(domain.test)) == (36, 4, 12)
    assert (domain.mean, domain.std) == ([0.1307], [0.3081])
    for part in (domain.train, domain.val, domain.test):
        assert part.x.dtype == torch.uint8
        assert torch.equal(part.x[:, 0, 3, 3].long(), part.y)


def test_size_channels_and_limit(mnist):
    domain = vision("MNIST", mnist, download=False, size=16, channels=3, limit=5, mean=[0.1], std=[0.3])
    assert domain.shape == (3, 16, 16)
    assert (len(domain.train), len(domain.val), len(domain.test)) == (5, 4, 5)
    assert domain.mean == pytest.approx([0.1] * 3) and domain.std == pytest.approx([0.3] * 3)


def test_without_a_given_normalisation_it_is_measured(mnist):
    domain = vision("MNIST", mnist, download=False)
    assert domain.mean == [pytest.approx(domain.train.pixels().mean().item(), abs=1e-4)]


def test_classes_are_brought_into_another_order(mnist):
    order = [0, 2, 1, 3, 4, 5, 7, 6, 8, 9]
    domain = vision("MNIST", mnist, download=False, labels=order)
    for part in (domain.train, domain.val, domain.test):
        assert [order[pixel] for pixel in part.x[:, 0, 3, 3].tolist()] == part.y.tolist()
    for wrong in ([0] * 10, list(range(9)), list(range(1, 11))):
        with pytest.raises(ValueError, match=r"permutation of 0\.\.9"):
            vision("MNIST", mnist, download=False, labels=wrong)


def test_stl10s_classes_get_cifar10s_labels():
    from runner import composed

    labels = composed("domain@ntl_scenario.id=stl10_as_cifar10").ntl_scenario.id.labels
    cifar = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    same = {"car": "automobile", "monkey": "frog"}
    # as in class_names.txt of the set
    stl = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    assert [cifar[label] for label in labels] == [same.get(name, name) for name in stl]
