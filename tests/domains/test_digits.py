from pathlib import Path

import numpy as np
import pytest
import torch

from dfkd.domains import IMAGES, digits
from dfkd.domains.digits import scikit_digits


def rows(images) -> set[bytes]:
    return {x.numpy().tobytes() for x in images.x}


def test_sizes_types_and_classes():
    domain = digits()
    assert domain.shape == (1, 16, 16) and domain.classes == 10 and domain.modality is IMAGES
    assert (len(domain.train), len(domain.val), len(domain.test)) == (1078, 270, 449)
    for part in (domain.train, domain.val, domain.test):
        assert part.x.dtype == torch.uint8 and part.y.dtype == torch.int64
        assert part.y.unique().tolist() == list(range(10))


def test_splits_are_disjoint_and_seeded(small_digits):
    assert small_digits.shape == (1, 8, 8)
    train, val, test = (rows(part) for part in (small_digits.train, small_digits.val, small_digits.test))
    assert not train & val and not train & test and not val & test
    again, other = digits(size=8), digits(size=8, split_seed=1)
    assert torch.equal(again.train.x, small_digits.train.x) and torch.equal(again.val.y, small_digits.val.y)
    assert not torch.equal(other.test.x, small_digits.test.x)


@pytest.mark.parametrize(
    ("options", "shape"), [({"size": None}, (1, 8, 8)), ({"size": 12, "channels": 3}, (3, 12, 12))]
)
def test_size_and_channels(options, shape):
    assert digits(**options).shape == shape


def test_the_whole_range_of_grey_is_used(small_digits):
    assert small_digits.train.x.min() == 0 and small_digits.train.x.max() == 255


def test_the_file_read_is_what_scikit_learn_loads():
    pixels, labels = scikit_digits()
    from sklearn.datasets import load_digits

    expected = load_digits()
    assert np.array_equal(pixels, expected.data) and np.array_equal(labels, expected.target)


def test_without_the_file_scikit_learn_is_asked(monkeypatch):
    with monkeypatch.context() as context:
        context.setattr(Path, "exists", lambda path: False)
        pixels, labels = scikit_digits()
    assert pixels.shape == (1797, 64) and np.array_equal(labels, scikit_digits()[1])
