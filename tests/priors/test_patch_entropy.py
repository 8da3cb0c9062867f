"""The entropy of patch similarity: against a loop over images and points, and where it does not apply."""

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from dfkd.models import Teacher, cnn_bn, timm_model, watch_patches
from dfkd.priors import PatchEntropy, Prior, TeacherPass

SHAPE = (1, 16, 16)


def patches_of(seed: int, images: int = 4, patches: int = 5) -> torch.Tensor:
    return torch.randn(images, patches, 3, generator=torch.Generator().manual_seed(seed))


def as_pass(*layers: torch.Tensor, sets: int = 1) -> TeacherPass:
    return TeacherPass(torch.zeros(1), torch.zeros(1), sets, patches=list(layers))


def slow_entropy(patches: torch.Tensor, bandwidth: float, points: int) -> float:
    similar = torch.stack([cosine_similarity(p[:, None], p[None], dim=2).flatten() for p in patches]).double()
    low, high = similar.min().item(), similar.max().item()
    grid, total = [low + (high - low) * i / (points - 1) for i in range(points)], 0.0
    for image in similar.tolist():
        kernels = [[math.exp(-(((x - s) / bandwidth) ** 2) / 2) for s in image] for x in grid]
        f = [sum(row) / len(image) / bandwidth / math.sqrt(2 * math.pi) + 1e-4 for row in kernels]
        g = [-value * math.log(value) for value in f]
        total += sum((g[i] + g[i + 1]) / 2 * (grid[i + 1] - grid[i]) for i in range(points - 1))
    return total / len(patches)


def test_it_equals_the_loop_over_images_and_points_summed_over_layers():
    first, second = patches_of(0), patches_of(1)
    term = PatchEntropy(bandwidth=0.1, points=7)
    expected = slow_entropy(first, 0.1, 7) + slow_entropy(second, 0.1, 7)
    assert term(as_pass(first, second)).item() == pytest.approx(-expected, rel=1e-4)


def test_sets_are_independent():
    first, second = patches_of(0), patches_of(1)
    alone = [PatchEntropy(bandwidth=0.1)(as_pass(part)) for part in (first, second)]
    together = PatchEntropy(bandwidth=0.1)(as_pass(torch.cat([first, second]), sets=2))
    torch.testing.assert_close(together, torch.cat(alone))


def test_patches_that_are_alike_have_less_entropy_than_different_ones():
    alike = torch.ones(2, 5, 3) + 0.01 * patches_of(2, images=2)
    term = PatchEntropy(bandwidth=0.1)
    assert term(as_pass(alike)).item() > term(as_pass(patches_of(3, images=2))).item()


def test_gradients_are_finite_also_for_equal_patches():
    patches = torch.ones(2, 5, 3, requires_grad=True)
    PatchEntropy()(as_pass(patches)).sum().backward()
    assert patches.grad.isfinite().all()


def test_a_vit_shows_the_patches_of_every_layer_without_its_class_token(random):
    net = timm_model(SHAPE, 10, "test_vit").eval()
    with watch_patches(net) as patches:
        for _ in range(2):  # the second pass replaces the first
            net(torch.rand(3, *SHAPE, generator=random))
    assert [tuple(p.shape) for p in patches] == [(3, 16, 32)] * 6  # 64 channels in two heads
    assert not any(layer.proj._forward_pre_hooks for layer in net.attention_layers)


def test_the_term_reaches_the_images_of_a_vit(random):
    prior = Prior({"patch_entropy": PatchEntropy(weight=2.0, bandwidth=0.1)})
    teacher = Teacher(timm_model(SHAPE, 10, "test_vit"), SHAPE, 10, [0.5], [0.5]).eval()
    images = torch.rand(4, *SHAPE, generator=random).requires_grad_()
    teacher_pass = prior.run_teacher(teacher, images, sets=2)
    terms = prior(teacher_pass)["patch_entropy"]
    terms.sum().backward()
    assert terms.shape == (2,) and images.grad.abs().sum() > 0


def test_a_teacher_without_patches_is_refused():
    prior = Prior({"patch_entropy": PatchEntropy()})
    with pytest.raises(ValueError, match=r"'patch_entropy' compares the patches .* drop it \(~prior.patch_entropy\)"):
        prior.check(cnn_bn(SHAPE, 10))
    prior.check(timm_model(SHAPE, 10, "test_vit"))


@pytest.mark.parametrize(
    ("options", "said"), [({"bandwidth": 0.0}, "bandwidth .* 0.0"), ({"points": 1}, "points .* 1")]
)
def test_a_value_out_of_range_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        PatchEntropy(**options)
