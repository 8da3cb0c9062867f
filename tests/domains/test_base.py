import pytest
import torch

from dfkd.domains import Domain, Images, fit_images, to_float
from dfkd.domains.base import split_validation, subsample


def numbered(count: int) -> Images:
    """Images whose pixel is their number."""
    return Images(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(count) % 3)


def test_floats_are_eight_bit_values_divided_by_255():
    assert to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    assert to_float(torch.tensor([-1.5, 2.0], dtype=torch.float64)).tolist() == [-1.5, 2.0]


def test_as_many_labels_as_images():
    with pytest.raises(ValueError, match="3 images but 2 labels"):
        Images(torch.zeros(3, 1, 2, 2), torch.zeros(2, dtype=torch.long))


def test_carving_is_seeded_disjoint_and_complete():
    train, val = split_validation(numbered(100), 0.2, seed=1)
    numbers = [part.x.flatten().tolist() for part in (train, val)]
    assert (len(numbers[0]), len(numbers[1])) == (80, 20)
    assert sorted(numbers[0] + numbers[1]) == list(range(100))
    assert [n % 3 for n in numbers[1]] == val.y.tolist()
    assert split_validation(numbered(100), 0.2, seed=1)[1].x.flatten().tolist() == numbers[1]
    assert split_validation(numbered(100), 0.2, seed=2)[1].x.flatten().tolist() != numbers[1]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(ValueError, match="val_share"):
        split_validation(numbered(10), share, 0)


def test_a_limit_is_a_seeded_choice():
    few = subsample(numbered(50), 10, seed=0)
    assert len(few) == 10 and len(few.x.unique()) == 10
    assert few.x.flatten().tolist() == subsample(numbered(50), 10, seed=0).x.flatten().tolist() != list(range(10))
    assert len(subsample(numbered(5), 10, 0)) == len(subsample(numbered(5), None, 0)) == 5
    with pytest.raises(ValueError, match="at least one"):
        subsample(numbered(5), 0, 0)


def test_resizing_keeps_the_type_and_the_mean():
    x = torch.randint(0, 256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    small = fit_images(x, 4, None)
    assert small.shape == (3, 1, 4, 4) and small.dtype == torch.uint8
    assert small.float().mean().item() == pytest.approx(x.float().mean().item(), abs=6)
    assert fit_images(x.float() / 255, 16, None).dtype == torch.float32
    assert fit_images(x, 8, None) is x


def test_grey_becomes_colour_and_colour_becomes_luma():
    grey = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    assert torch.equal(fit_images(grey, None, 3), grey.repeat(1, 3, 1, 1))
    red, white = torch.zeros(1, 3, 1, 1, dtype=torch.uint8), torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    red[:, 0] = 255
    assert fit_images(red, None, 1).item() == round(0.299 * 255)
    assert fit_images(white, None, 1).item() == 255
    with pytest.raises(ValueError, match="channels"):
        fit_images(grey, None, 2)
    with pytest.raises(ValueError, match="channels"):
        fit_images(torch.zeros(1, 4, 2, 2), None, 3)


def test_a_domain_measures_its_normalisation_on_the_training_images():
    train = Images(torch.tensor([0, 255, 0, 255], dtype=torch.uint8).view(4, 1, 1, 1), torch.zeros(4).long())
    other = Images(torch.full((1, 1, 1, 1), 77, dtype=torch.uint8), torch.zeros(1).long())
    domain = Domain("d", 1, train, other, other)
    assert domain.mean == [0.5]
    assert domain.std == [pytest.approx(0.5774)]
    assert domain.shape == (1, 1, 1)
    assert Domain("d", 1, train, other, other, [0.1], [0.2]).mean == [0.1]


def test_constant_images_do_not_divide_by_zero():
    flat = Images(torch.zeros(4, 1, 2, 2), torch.zeros(4).long())
    assert Domain("flat", 1, flat, flat, flat).std == [0.001]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_outside_the_classes_are_refused(labels):
    good = Images(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]))
    bad = Images(torch.zeros(2, 1, 2, 2), torch.tensor(labels))
    with pytest.raises(ValueError, match=r"'d' has labels .* in test, not 0\.\.2"):
        Domain("d", 3, good, good, bad)


def test_an_empty_split_is_refused():
    good = Images(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="no val images"):
        Domain("d", 2, good, good.take(slice(0, 0)), good)
