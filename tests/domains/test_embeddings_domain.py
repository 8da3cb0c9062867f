import numpy as np
import pytest
import torch

from dfkd.domains import EMBEDDINGS, embeddings


@pytest.fixture
def archive(tmp_path):
    """Write an archive of 20 + 8 vectors of five numbers; the given arrays replace the usual ones."""

    def write(**given):
        rng = np.random.RandomState(0)
        arrays = {"x_train": 100 + 7 * rng.randn(20, 5), "y_train": np.arange(20) % 4}
        arrays |= {"x_test": 100 + 7 * rng.randn(8, 5), "y_test": np.arange(8) % 4} | given
        np.savez(tmp_path / "mine.npz", **arrays)
        return str(tmp_path / "mine.npz")

    return write


def test_a_vector_is_an_example_with_a_channel_for_every_feature(archive):
    domain = embeddings(archive(), val_share=0.2)
    assert (domain.name, domain.classes, domain.shape, domain.modality) == ("mine", 4, (5, 1, 1), EMBEDDINGS)
    assert (len(domain.train), len(domain.val), len(domain.test)) == (16, 4, 8)
    assert np.allclose(domain.test.pixels().flatten(1), np.load(archive())["x_test"])
    assert domain.test.y.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_every_feature_has_its_mean_and_std(archive):
    x = np.random.RandomState(1).randn(20, 5) * [1, 1e-6, 1e6, 0, 3] + [0, 1, 2, 5, 4]
    domain = embeddings(archive(x_train=x))
    train = domain.train.x.double().flatten(1)
    assert domain.mean == pytest.approx(train.mean(0).tolist())
    expected = train.std(0, correction=0)
    expected[3] = 1.0  # of a feature that never changes
    assert domain.std == pytest.approx(expected.tolist())


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16, np.float64])
def test_numbers_of_any_kind_are_taken_as_they_are(archive, dtype):
    x = np.arange(100).reshape(20, 5).astype(dtype)
    domain = embeddings(archive(x_train=x))
    assert domain.train.x.dtype == torch.float32 and domain.train.x.max() > 90


def test_classes_label_and_limit(archive):
    domain = embeddings(archive(), classes=7, label="own", limit=5)
    assert (domain.name, domain.classes, len(domain.train), len(domain.test)) == ("own", 7, 5, 5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x_train": np.zeros((20, 6, 6))}, r"numbers \(N, D\), got float64 of shape \(20, 6, 6\)"),
        ({"x_train": np.array([["a"]] * 20)}, r"numbers \(N, D\), got <U1"),
        ({"x_train": np.zeros((0, 5)), "y_train": np.arange(0)}, r"numbers \(N, D\)"),
        ({"x_test": np.full((8, 5), np.nan)}, "NaN or infinite"),
        ({"x_test": np.zeros((8, 6))}, "of one length, got 5 and 6"),
        ({"y_train": np.arange(19) % 4}, "20 examples but 19 labels"),
        ({"x_train": np.zeros((20, 1)), "x_test": np.zeros((8, 1))}, r"two numbers or more each"),
    ],
)
def test_impossible_arrays_say_what_is_wrong(archive, given, said):
    with pytest.raises(ValueError, match=said):
        embeddings(archive(**given), classes=4)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.npz"):
        embeddings(str(tmp_path / "gone.npz"))
