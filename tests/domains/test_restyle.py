import pytest
import torch

from dfkd.domains import digits, textured, tinted


@pytest.fixture(scope="module")
def colour():
    return digits(size=8, channels=3)


@pytest.mark.parametrize("style", [textured, tinted])
def test_labels_splits_and_shape_stay_and_images_change(colour, style):
    styled = style(colour)
    assert styled.shape == colour.shape and styled.classes == 10
    assert styled.name == f"{style.__name__}_digits"
    for part in ("train", "val", "test"):
        mine, source = getattr(styled, part), getattr(colour, part)
        assert torch.equal(mine.y, source.y)
        assert mine.x.dtype == torch.uint8 and not torch.equal(mine.x, source.x)


@pytest.mark.parametrize("style", [textured, tinted])
def test_a_style_is_seeded_and_every_image_and_split_has_its_own(colour, style):
    first, again, other = style(colour), style(colour), style(colour, style_seed=1)
    assert torch.equal(first.train.x, again.train.x) and torch.equal(first.test.x, again.test.x)
    assert not torch.equal(first.train.x, other.train.x)
    corners = first.train.x[:100, :, 0, 0].float()  # background almost everywhere
    assert len(corners.unique(dim=0)) > 50
    assert not torch.equal(first.train.x[:50, :, 0, 0], first.val.x[:50, :, 0, 0])


def test_the_normalisation_is_that_of_the_restyled_images(colour):
    assert textured(colour).mean != colour.mean


def test_no_strength_gives_the_images_back(colour):
    assert torch.equal(textured(colour, strength=0.0).val.x, colour.val.x)


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_an_impossible_strength_is_refused(colour, strength):
    with pytest.raises(ValueError, match="strength"):
        textured(colour, strength)


def test_tinted_digits_stay_legible(colour):
    x = tinted(colour).train.x.float() / 255
    contrast = (x.amax((2, 3)) - x.amin((2, 3))).amax(1)
    assert contrast.min() > 0.25


def test_grey_domains_can_be_restyled(small_digits):
    assert textured(small_digits).shape == (1, 8, 8)
