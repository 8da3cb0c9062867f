import pytest
import torch
from torch import nn

from dfkd.models import (
    cnn,
    cnn_bn,
    lenet,
    mlp,
    on_stages,
    record_stages,
    resnet,
    resnet4,
    stage_shapes,
    stages,
    timm_model,
    vgg,
    wrn,
)


@pytest.mark.parametrize(
    ("make", "size", "expected"),
    [
        (cnn_bn, 16, [(16, 8, 8), (32, 4, 4), (64, 2, 2)]),
        (cnn, 32, [(64, 13, 13), (64, 5, 5), (64, 1, 1)]),
        (lenet, 32, [(6, 14, 14), (16, 5, 5)]),
        (vgg, 32, [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512, 1, 1)]),
        (vgg, 8, [(64, 4, 4), (128, 2, 2), (256, 1, 1), (512, 1, 1)]),  # two pools are left out
        (resnet, 8, [(64, 8, 8), (64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)]),
        (resnet4, 32, [(32, 8, 8), (32, 8, 8), (64, 4, 4), (128, 2, 2), (64, 1, 1)]),
        (wrn, 8, [(16, 8, 8), (16, 8, 8), (32, 4, 4), (64, 2, 2)]),
    ],
)
def test_stages_of_every_family(make, size, expected):
    assert stage_shapes(make((3, size, size), 4), (3, size, size)) == expected


@pytest.mark.parametrize(
    ("model", "first", "count"),
    [
        ("test_vit", (64, 17), 6),  # tokens: 4x4 patches and the class token
        ("test_resnet", (32, 32, 32), 5),
        ("swin_tiny_patch4_window7_224", (96, 8, 8), 4),
    ],
)
def test_stages_of_timm_networks_have_their_channels_second(model, first, count):
    net = timm_model((3, 32, 32), 4, model, patch_size=8 if model == "test_vit" else 4)
    found = stage_shapes(net, (3, 32, 32))
    assert len(found) == count and found[0] == first
    assert [shape[0] for shape in found] == [tap["num_chs"] for tap in net.net.feature_info]


def test_what_is_put_in_place_of_a_stage_goes_on_through_the_network(random):
    net = cnn_bn((1, 8, 8), 3, widths=(4, 6)).eval()
    x = torch.randn(2, 1, 8, 8, generator=random)

    def change(number, maps):
        return maps * 2 + 1 if number == 0 else None

    with on_stages(net, change):
        found = net(x)
    expected = net.head(net.body[4:](net.body[:4](x) * 2 + 1))
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(net(x), expected)


@pytest.mark.cpu("asks for the CPU's autocast")
def test_maps_are_float32_under_autocast_and_the_network_goes_on_in_its_own_precision(random):
    net = cnn_bn((1, 8, 8), 3).eval()
    inside = []
    with torch.autocast("cpu", torch.bfloat16), on_stages(net, lambda i, h: inside.append((h @ h).dtype) or h):
        logits = net(torch.randn(2, 1, 8, 8, generator=random))
    assert inside == [torch.float32] * 3 and logits.dtype == torch.bfloat16


def test_a_recording_keeps_the_graph_and_starts_anew(random):
    net = wrn((1, 8, 8), 3).eval()
    first, second = torch.randn(2, 4, 1, 8, 8, generator=random)
    with record_stages(net) as seen:
        net(first)
        net(second)
    assert len(seen) == 4
    assert torch.equal(seen[0], net.body[0](second))
    seen[-1].sum().backward()
    assert net.body[0].weight.grad.abs().sum() > 0


def test_hooks_are_removed_also_after_an_exception_and_buffers_stay(unchanged):
    net = cnn_bn((1, 8, 8), 3)
    check = unchanged(net)
    stage_shapes(net, (1, 8, 8))
    assert net.training
    with pytest.raises(RuntimeError, match="stop"), record_stages(net):
        raise RuntimeError("stop")
    check()


@pytest.mark.parametrize("net", [mlp((1, 8, 8), 3), nn.Linear(2, 2)])
def test_a_network_without_feature_maps_is_named(net):
    with pytest.raises(ValueError, match=f"{type(net).__name__} names no stages"):
        stages(net)


def test_stages_are_no_part_of_the_state_dict():
    assert all(key.startswith(("body.", "head.")) for key in vgg((3, 8, 8), 3).state_dict())
