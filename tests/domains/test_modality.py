import pytest
import torch

from dfkd.domains import EMBEDDINGS, IMAGES, POINTS, Domain, Images, Modality, textured, tinted


def domain(shape: tuple[int, int, int], modality: Modality) -> Domain:
    part = Images(torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)), torch.arange(4) % 2)
    return Domain("own", 2, part, part, part, modality=modality)


def test_a_domain_is_one_of_images_unless_it_says_otherwise(tiny_domain):
    assert tiny_domain().modality is IMAGES and domain((7, 1, 1), EMBEDDINGS).modality is EMBEDDINGS


@pytest.mark.parametrize(("modality", "pixels"), [(IMAGES, True), (POINTS, False), (EMBEDDINGS, False)])
def test_only_pictures_have_pixels(modality, pixels):
    assert modality.has_pixels == pixels
    assert not Modality("spectra", box=None, neighbours=True, figure="projection").has_pixels


def test_an_unknown_figure_names_the_known_ones():
    with pytest.raises(ValueError, match=r"grid, field, projection, got 'pie'"):
        Modality("spectra", None, True, "pie")


@pytest.mark.parametrize(
    ("shape", "modality", "said"),
    [((1, 3, 1), POINTS, "must be two numbers each"), ((1, 1, 1), EMBEDDINGS, "must be two numbers or more each")],
)
def test_examples_that_the_figure_cannot_show_are_refused(shape, modality, said):
    with pytest.raises(ValueError, match=rf"'own' has {modality.name} of shape \(1, ., 1\), which {said}"):
        domain(shape, modality)


@pytest.mark.parametrize("restyle", [textured, tinted])
def test_only_images_are_restyled(restyle):
    with pytest.raises(ValueError, match="'own' is a domain of embeddings"):
        restyle(domain((7, 1, 1), EMBEDDINGS))
