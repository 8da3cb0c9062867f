import pytest
import torch
import torch.nn.functional as F

from dfkd.models import ResNetCBN
from dfkd.models.resnet_cbn import EMBEDDING, ConditionalBatchNorm, SelfAttention, UpBlock


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (1, 16, 16), (1, 28, 28), (3, 32, 32), (3, 48, 48), (3, 64, 64), (3, 16, 20)]
)
def test_images_have_the_asked_size_and_lie_in_the_unit_interval(shape, attention, random):
    generator = ResNetCBN(shape, 3, latent=8, width=8, attention=attention)
    images = generator(5 * torch.randn(6, 8, generator=random), torch.tensor([0, 1, 2] * 2))
    assert generator.conditional and generator.classes == 3
    assert images.shape == (6, *shape)
    assert images.min() >= 0 and images.max() <= 1


def test_the_class_and_the_latent_vector_both_matter(random):
    torch.manual_seed(0)
    generator = ResNetCBN((1, 16, 16), 3, latent=8, width=8).eval()
    z = torch.randn(1, 8, generator=random).repeat(3, 1)
    with torch.no_grad():
        same, other = generator(z, torch.tensor([1, 1, 2])), generator(-z, torch.tensor([1, 1, 2]))
    assert torch.allclose(same[0], same[1], atol=1e-6)
    assert (same[0] - same[2]).abs().max() > 1e-3
    assert (same - other).abs().amax((1, 2, 3)).min() > 1e-3


def test_the_parameter_count_is_the_layers(random):
    w, z, k = 256, 128, EMBEDDING
    block = 4 * k * w + 2 * (9 * w * w + w) + w * w + w
    expected = 10 * k + (z + 1) * w * 16 + 3 * block + 2 * w + 9 * w * 3 + 3
    attention = 2 * w * (w // 8) + w * (w // 2) * 2 + 1
    for more, count in ((False, expected), (True, expected + attention)):
        assert sum(p.numel() for p in ResNetCBN((3, 32, 32), 10, attention=more).parameters()) == count
    assert round(expected / 1e6, 2) == 4.67


def test_conditional_batch_norm_scales_and_shifts_by_class(random):
    norm = ConditionalBatchNorm(2)
    h, e = 3 * torch.randn(4, 2, 3, 3, generator=random) + 1, torch.randn(4, EMBEDDING, generator=random)
    out = norm.train()(h, e)
    for n in range(4):
        for c in range(2):
            values = h[:, c]
            standard = (h[n, c] - values.mean()) / (values.var(correction=0) + 1e-5).sqrt()
            expected = standard * (1 + norm.scale.weight[c] @ e[n]) + norm.shift.weight[c] @ e[n]
            assert torch.allclose(out[n, c], expected, atol=1e-5)


def test_a_block_adds_its_input_enlarged(random):
    torch.manual_seed(0)
    block = UpBlock(8).eval()
    h, e = torch.randn(2, 8, 3, 3, generator=random), torch.zeros(2, EMBEDDING)
    block.conv2.weight.data.zero_()
    block.conv2.bias.data.zero_()
    expected = block.shortcut(F.interpolate(h, scale_factor=2))
    assert torch.allclose(block(h, e), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(4, 4), (7, 7), (4, 6)])
def test_attention_equals_the_loop_over_positions(size, random):
    torch.manual_seed(0)
    layer = SelfAttention(8)
    h = torch.randn(2, 8, *size, generator=random)
    assert torch.equal(layer(h), h)  # gamma is 0 at first
    layer.gamma.data.fill_(0.5)
    expected = h.clone()
    for n in range(2):
        query = layer.query(h)[n].flatten(1)
        key, value = (F.max_pool2d(f(h), 2)[n].flatten(1) for f in (layer.key, layer.value))
        for place in range(query.shape[1]):
            share = torch.stack([query[:, place] @ key[:, other] for other in range(key.shape[1])]).softmax(0)
            seen = sum(share[other] * value[:, other] for other in range(key.shape[1]))
            i, j = divmod(place, size[1])
            expected[n, :, i, j] += 0.5 * layer.out.weight[:, :, 0, 0] @ seen
    assert torch.allclose(layer(h), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (1, 30, 30)}, "not 30x30"),
        ({"shape": (1, 4, 4)}, "not 4x4"),
        ({"shape": (1, 18, 16)}, "not 18x16"),
        ({"shape": (1, 8, 8), "latent": 0}, "latent"),
        ({"shape": (1, 8, 8), "width": 4}, "width"),
    ],
)
def test_impossible_generators_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ResNetCBN(classes=3, **options)
