"""What holds for every shipped generator on images of 16 to 64 pixels."""

import pytest
import torch
from shipped import SMALL, build, config, options

from dfkd.config.cell import apply_limit

DOMAINS = [(side, channels) for side in (16, 20, 28, 32, 64) for channels in (1, 3)]


@pytest.mark.parametrize(("side", "channels"), DOMAINS)
@pytest.mark.parametrize("name", options("generator"))
def test_a_generator_makes_images_of_the_domain_and_learns_with_all_its_parameters(name, side, channels, random):
    node = config(f"generator@synthesizer.generator={name}")["synthesizer"]["generator"]
    apply_limit(node, SMALL)
    torch.manual_seed(0)
    generator = build(node, "generator", shape=(channels, side, side), classes=4, box=(0.0, 1.0)).train()
    z = torch.randn(8, generator.latent, generator=random)
    labels = (torch.arange(8) % 4,) if getattr(generator, "conditional", False) else ()
    images = generator(z, *labels)
    assert images.shape == (8, channels, side, side)
    assert 0 <= images.min() < images.max() <= 1 and not torch.allclose(images[0], images[4])
    wanted = torch.rand(images.shape, generator=random)
    (images - wanted).square().sum().backward()
    still = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
