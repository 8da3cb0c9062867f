import pytest
import torch
from torch import nn

from dfkd.models import (
    batch_norms,
    cnn_bn,
    frozen_norms,
    lenet,
    resnet,
    timm_model,
    vgg,
    watch_batch_norms,
    watch_channel_means,
    watch_features,
    wrn,
)


@pytest.mark.parametrize("make", [cnn_bn, resnet, wrn])
def test_every_layer_is_seen_once_in_order(make, random):
    net = make((1, 8, 8), 3).eval()
    with watch_batch_norms(net) as seen:
        net(torch.randn(2, 1, 8, 8, generator=random))
    assert [len(s.running_mean) for s in seen] == [bn.num_features for bn in batch_norms(net)]
    assert all(s.mean.shape == s.var.shape == (1, len(s.running_mean)) for s in seen)


def test_batch_norm_of_flat_features(random):
    net = nn.Sequential(nn.BatchNorm1d(3)).eval()
    h = torch.randn(6, 3, generator=random)
    with watch_batch_norms(net, sets=2) as seen:
        net(h)
    assert torch.allclose(seen[0].mean[1], h[3:].mean(0))
    assert torch.allclose(seen[0].var[0], h[:3].var(0, correction=0))


def test_a_second_forward_starts_anew(random):
    net = cnn_bn((1, 8, 8), 3).eval()
    first, second = torch.randn(2, 4, 1, 8, 8, generator=random)
    with watch_batch_norms(net) as seen:
        net(first)
        net(second)
    with watch_batch_norms(net) as alone:
        net(second)
    assert len(seen) == len(alone) == 3
    assert torch.equal(seen[0].mean, alone[0].mean)


class Backwards(nn.Module):
    """Uses its layers in another order than it defines them, as a network of the user's own may."""

    def __init__(self):
        super().__init__()
        self.last = nn.BatchNorm2d(2)
        self.first = nn.BatchNorm2d(2)

    def forward(self, x):
        return self.last(self.first(x) + 1)


def test_layers_used_in_another_order_than_defined_are_all_seen(random):
    net = Backwards().eval()
    for _ in range(2):
        with watch_batch_norms(net) as seen:
            net(torch.randn(4, 2, 3, 3, generator=random))
        assert len(seen) == 2


def test_batch_norms_without_running_statistics_do_not_count():
    net = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.GroupNorm(1, 2), nn.BatchNorm2d(2))
    assert batch_norms(net) == [net[2]]


def test_hooks_are_removed_also_after_an_exception(unchanged):
    net = cnn_bn((1, 8, 8), 3).eval()
    check = unchanged(net)
    with pytest.raises(RuntimeError, match="stop"), watch_batch_norms(net):
        raise RuntimeError("stop")
    check()


@pytest.mark.parametrize("make", [cnn_bn, resnet, wrn, vgg, lenet, timm_model])
def test_the_features_are_what_the_head_makes_logits_of(make, random, unchanged):
    net = make((1, 32, 32), 3).eval().to(random.device)
    check = unchanged(net)
    first, second = torch.randn(2, 2, 1, 32, 32, generator=random)
    with watch_features(net) as seen:
        assert seen == []
        net(first)
        logits = net(second)
    assert len(seen) == 1
    assert torch.allclose(net.head(seen[0]), logits, atol=1e-6)
    assert torch.allclose(net.features(second), seen[0], atol=1e-6)
    check()


def test_feature_hooks_are_removed_also_after_an_exception(unchanged):
    net = cnn_bn((1, 8, 8), 3).eval()
    check = unchanged(net)
    with pytest.raises(RuntimeError, match="stop"), watch_features(net):
        raise RuntimeError("stop")
    check()


def test_channel_means_are_those_of_every_image(random):
    net = cnn_bn((1, 8, 8), 3, widths=(4, 6)).eval()
    images = torch.randn(5, 1, 8, 8, generator=random)
    with watch_channel_means(net) as seen:
        net(images)
    first = net.body[0](images)
    second = net.body[4](net.body[:4](images))
    for means, h in zip(seen, (first, second), strict=True):
        assert torch.allclose(means, h.mean((2, 3)), atol=1e-6)


def test_channel_means_and_statistics_can_be_taken_of_the_same_pass(random):
    net = cnn_bn((1, 8, 8), 3).eval()
    with watch_batch_norms(net) as statistics, watch_channel_means(net) as means:
        net(torch.randn(4, 1, 8, 8, generator=random))
    for s, m in zip(statistics, means, strict=True):
        assert torch.allclose(s.mean[0], m.mean(0), atol=1e-6)


class Activated(nn.BatchNorm2d):
    """A layer that does more than it is called for, as timm's do."""

    def forward(self, h):
        return super().forward(h).relu()


def test_frozen_layers_map_alike_and_are_put_back(random, unchanged):
    net = nn.Sequential(nn.BatchNorm2d(2), Activated(2), nn.BatchNorm2d(2, track_running_stats=False)).eval()
    check, h = unchanged(net), torch.randn(4, 2, 3, 3, generator=random)
    with pytest.raises(RuntimeError, match="stop"), frozen_norms(net):
        assert ["forward" in vars(layer) for layer in net] == [True, False, False]
        with frozen_norms(net):
            assert torch.allclose(net(h), net[2](net[1](net[0](h))))
            inside = net(h)
        raise RuntimeError("stop")
    assert not any("forward" in vars(layer) for layer in net)
    assert torch.allclose(net(h), inside)
    check()


def test_a_layer_in_training_mode_is_not_frozen(random):
    net = nn.Sequential(nn.BatchNorm2d(2)).train()
    with frozen_norms(net):
        net(torch.randn(4, 2, 3, 3, generator=random) + 1)
    assert net[0].num_batches_tracked == 1 and net[0].running_mean.mean() > 0.01
