"""All networks through their options in conf/network."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from on_device import on_a_cpu

from dfkd.config.build import Builder
from dfkd.models import cnn, cnn_bn, lenet, mlp, resnet, vgg, wrn

CONF = Path(__file__).resolve().parents[2] / "conf"
GREY, COLOUR, POINTS = (1, 28, 28), (3, 32, 32), (1, 2, 1)


def build(option: str, shape: tuple[int, int, int], classes: int = 10, **overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = OmegaConf.to_container(compose(f"network/{option}").network)
    builder = Builder(shape=shape, classes=classes)
    network = builder.build(node | overrides, "network")
    builder.raise_problems()
    return network


def size(network) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("option", "shape", "classes", "parameters"),
    [
        ("mlp", POINTS, 2, 942),
        ("cnn", GREY, 10, 107_658),
        ("cnn", COLOUR, 10, 108_234),
        ("lenet", GREY, 10, 61_706),
        ("lenet", (1, 32, 32), 10, 61_706),
        ("lenet_half", GREY, 10, 15_738),
        ("resnet4", GREY, 10, 427_882),
        ("resnet4", COLOUR, 10, 431_018),
        ("resnet18", COLOUR, 10, 11_173_962),
        ("resnet34", COLOUR, 10, 21_282_122),
        ("wrn_16_1", COLOUR, 10, 175_066),
        ("wrn_16_2", COLOUR, 10, 691_674),
        ("wrn_40_1", COLOUR, 10, 563_930),
        ("wrn_40_2", COLOUR, 10, 2_243_546),
        ("vgg11", COLOUR, 10, 9_225_610),  # torchvision's features (9,220,480) and one linear layer of 512 x 10
        ("vgg11_bn", COLOUR, 10, 9_231_114),
        ("vgg13", COLOUR, 10, 9_410_122),
        ("vgg13_bn", COLOUR, 10, 9_416_010),
        # convolutions of 9, 144 x 32, 288 x 64 weights, two numbers a BatchNorm channel, linear 4 * 64 -> 10
        ("cnn_bn", (1, 16, 16), 10, 16 * 9 + 32 * 144 + 64 * 288 + 2 * (16 + 32 + 64) + 256 * 10 + 10),
    ],
)
def test_parameter_counts_equal_the_reference(option, shape, classes, parameters):
    assert size(build(option, shape, classes)) == parameters


@pytest.mark.parametrize(
    ("option", "shape"),
    [
        ("mlp", POINTS),
        ("cnn", GREY),
        ("cnn", COLOUR),
        ("cnn_bn", (1, 8, 8)),
        ("cnn_bn", (3, 20, 17)),
        ("lenet", GREY),
        ("lenet_half", (3, 32, 32)),
        ("resnet4", GREY),
        ("resnet18", (3, 8, 8)),
        ("wrn_16_1", (1, 16, 16)),
        ("vgg11", (1, 16, 16)),
        ("vgg13_bn", (1, 28, 28)),
        ("vgg11_bn", (3, 8, 8)),
    ],
)
def test_forward_is_the_head_of_the_features(option, shape, random):
    network = build(option, shape, 7).eval().to(random.device)
    x = torch.rand(3, *shape, generator=random)
    with torch.no_grad():
        features = network.features(x)
        assert features.dim() == 2
        assert torch.equal(network(x), network.head(features))
    assert network(x).shape == (3, 7)
    assert torch.allclose(network(x[1:2]), network(x)[1:2], atol=on_a_cpu(random.device, 1e-5, 1e-4))


@pytest.mark.parametrize(("option", "has"), [("vgg11", 0), ("vgg11_bn", 8), ("vgg13", 0), ("vgg13_bn", 10), ("cnn", 0)])
def test_batch_norm_is_where_its_name_says(option, has):
    network = build(option, COLOUR)
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules()) == has


def test_resnet18_has_the_small_stem():
    network = build("resnet18", COLOUR).eval()
    assert network.body[0].kernel_size == (3, 3) and network.body[0].stride == (1, 1)
    assert not any(isinstance(m, torch.nn.MaxPool2d) for m in network.modules())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cnn((1, 16, 16), 10), r"'cnn' takes images of .*16x16.*data\.size"),
        (lambda: cnn((1, 33, 33), 10), "'cnn' takes images of .*33x33"),
        (lambda: cnn((1, 36, 36), 10), "'cnn' takes images of .*36x36"),
        (lambda: lenet((1, 16, 16), 10), "'lenet' takes images of 28 to 32"),
        (lambda: lenet((1, 33, 33), 10), "28 to 32"),
        (lambda: cnn_bn((1, 4, 4), 10), "at least 8"),
        (lambda: cnn_bn((1, 8, 8), 10, norm="group"), "norm"),
        (lambda: cnn_bn((1, 8, 8), 10, head="max"), "head"),
        (lambda: mlp((1, 2, 1), 2, hidden=0), "hidden"),
        (lambda: mlp((1, 2, 1), 2, layers=0), "layers"),
        (lambda: vgg((3, 32, 32), 10, depth=12), "depth"),
        (lambda: vgg((3, 32, 32), 10, pools=6), "pools from 0 to 5"),
        (lambda: resnet((3, 32, 32), 10, stem="conv5"), "stem must be one of conv3, conv3_pool, conv7_pool"),
        (lambda: wrn((3, 32, 32), 10, depth=18), "6n . 4"),
        (lambda: wrn((3, 32, 32), 10, widen=0), "widen"),
    ],
)
def test_impossible_networks_say_why(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_cnn_bn_without_norm_and_with_a_pooling_head(random):
    network = build("cnn_bn", (1, 16, 16), norm="none", head="pool")
    assert network.head.in_features == 64
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    assert network(torch.rand(2, 1, 16, 16, generator=random)).shape == (2, 10)
