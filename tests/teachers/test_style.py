import math

import pytest
import torch

from dfkd.models import cnn_bn, mlp, vgg
from dfkd.teachers.style import has_style, instance_statistics, require_style, restyle, without_style


def slow_statistics(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + 1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 7)])
def test_instance_statistics_equal_the_slow_loop(random, shape):
    maps = torch.randn(shape, generator=random) * 2 + 1
    mean, std = instance_statistics(maps)
    for i in range(2):
        for c in range(3):
            expected = slow_statistics(maps[i, c].flatten().tolist())
            assert (mean[i, c].item(), std[i, c].item()) == pytest.approx(expected, rel=1e-4)


def test_without_style_every_channel_has_mean_0_and_deviation_1(random):
    mean, std = instance_statistics(without_style(torch.randn(2, 3, 4, 4, generator=random) * 3 + 5))
    assert torch.allclose(mean, torch.zeros(2, 3), atol=1e-5)
    assert torch.allclose(std, torch.ones(2, 3), atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 3, 5)])
def test_restyling_equals_the_slow_loop(random, shape):
    ood, id = torch.randn(2, *shape, generator=random)
    found = restyle(ood, id, torch.Generator().manual_seed(5))
    draw = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(5))
    weights = ((2 * draw - 1) / math.sqrt(3)).tolist()

    def sigmoid(v):
        return 1 / (1 + math.exp(-v))

    for i in range(2):
        style = [slow_statistics(id[i, c].flatten().tolist()) for c in range(3)]
        for c in range(3):
            scale = sigmoid(sum(weights[0][c][k] * style[k][1] for k in range(3)))
            shift = sigmoid(sum(weights[1][c][k] * style[k][0] for k in range(3)))
            assert torch.allclose(found[i, c], ood[i, c] * scale + shift, atol=1e-5)


def test_restyling_weights_are_drawn_anew_at_every_call_from_the_generator_alone(random):
    ood, id = torch.randn(2, 2, 3, 4, 4, generator=random)
    generator = torch.Generator().manual_seed(1)
    first, second = restyle(ood, id, generator), restyle(ood, id, generator)
    assert not torch.allclose(first, second)
    torch.manual_seed(7)
    assert torch.equal(first, restyle(ood, id, torch.Generator().manual_seed(1)))


def test_gradients_reach_both_halves_also_where_a_map_is_constant(random):
    ood = torch.randn(2, 3, 4, 4, generator=random, requires_grad=True)
    id = torch.ones(2, 3, 4, 4, requires_grad=True)
    restyle(ood, id, random).sum().backward()
    assert ood.grad.abs().sum() > 0 and id.grad.abs().sum() > 0
    assert id.grad.isfinite().all()


def test_one_position_has_no_style():
    assert has_style(torch.zeros(1, 2, 1, 2)) and has_style(torch.zeros(1, 2, 2))
    assert not has_style(torch.zeros(3, 2, 1, 1))


def test_a_network_needs_a_stage_with_two_positions():
    require_style("cuti", cnn_bn((1, 8, 8), 3), (1, 8, 8))
    with pytest.raises(ValueError, match=r"teacher=cuti works on feature maps: .*names no stages"):
        require_style("cuti", mlp((1, 8, 8), 3), (1, 8, 8))
    with pytest.raises(ValueError, match=r"two positions.*2x2 pixels"):
        require_style("cupi", vgg((1, 2, 2), 3), (1, 2, 2))
