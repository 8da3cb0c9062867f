"""Networks in the layer names of others compute with our layers what they computed with theirs."""

import pytest
import torch
from foreign import (
    BlockVGG,
    Bottleneck,
    CakeCNN,
    CakeLeNet,
    CakeMLP,
    CakeResNet4,
    CifarResNet,
    DaflLeNet,
    FeaturesVGG,
    PreActBlock,
    TradesResNet,
    WeiResNet,
    WideResNet,
    on_meta,
    randomised,
    small_stem,
)
from torch import nn

from dfkd.cli.fits import on_meta_device
from dfkd.errors import ConfigError
from dfkd.models import cnn, cnn_bn, lenet, lenet_half, mlp, resnet, resnet4, timm_model, vgg, wrn
from dfkd.weights import choose


def tv(name: str, **options: object) -> torch.nn.Module:
    """A network of torchvision, which takes seconds to import."""
    from torchvision import models

    return getattr(models, name)(**options)


def timms(name: str, **options: object) -> torch.nn.Module:
    """A network of timm, which takes seconds to import."""
    import timm

    return timm.create_model(name, **options)


COLOUR, GREY = (3, 16, 16), (1, 32, 32)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
TV, CMI = "torchvision and timm ResNet", "CMI, Fast, NAYER and kuangliu ResNet"
WRN, WEI = "CMI, Fast, NAYER and xternalz WRN", "weiaicunzai ResNet"
FEATURES, BLOCKED = "torchvision and kuangliu VGG", "CMI, Fast, NAYER and RepDistiller VGG"
LENET = "DAFL, CMI, Fast and NAYER LeNet"

# Their network, ours, the shape of an image, the naming that should be recognised.
PAIRS = {
    "torchvision resnet18": (
        lambda: tv("resnet18", num_classes=10), lambda s: resnet(s, 10, stem="conv7_pool"),
        (3, 64, 64), TV),
    "torchvision resnet18, CIFAR": (
        lambda: small_stem(tv("resnet18", num_classes=10)), lambda s: resnet(s, 10), COLOUR, TV),
    "torchvision resnet18, CIFAR, pooled": (
        lambda: small_stem(tv("resnet18", num_classes=7), pool=True),
        lambda s: resnet(s, 7, stem="conv3_pool"), (3, 32, 32), TV),
    "timm resnet18, CIFAR (CAKE)": (
        lambda: small_stem(timms("resnet18", num_classes=10)), lambda s: resnet(s, 10), COLOUR, TV),
    "timm resnet18 for timm": (
        lambda: small_stem(timms("resnet18", num_classes=10)),
        lambda s: timm_model(s, 10, "resnet18"), COLOUR, "timm"),
    "CMI resnet50 for timm": (
        lambda: CifarResNet(BLOCKS[34], kind=Bottleneck, wide=4), lambda s: timm_model(s, 10, "resnet50"), COLOUR, CMI),
    "timm vit": (
        lambda: timms("vit_tiny_patch16_224", num_classes=5, img_size=16, patch_size=4, depth=12),
        lambda s: timm_model(s, 5, "vit_tiny_patch16_224"), COLOUR, "timm"),
    "CMI resnet18": (lambda: CifarResNet(BLOCKS[18]), lambda s: resnet(s, 10), COLOUR, CMI),
    "weiaicunzai resnet18": (lambda: WeiResNet(BLOCKS[18]), lambda s: resnet(s, 100), COLOUR, WEI),
    "CMI wrn_16_1": (lambda: WideResNet(16, 1), lambda s: wrn(s, 10, 16, 1), COLOUR, WRN),
    "CMI wrn_16_2": (lambda: WideResNet(16, 2), lambda s: wrn(s, 10, 16, 2), COLOUR, WRN),
    "CMI wrn_40_1": (lambda: WideResNet(40, 1), lambda s: wrn(s, 10, 40, 1), COLOUR, WRN),
    "CMI wrn_40_2": (lambda: WideResNet(40, 2, 100), lambda s: wrn(s, 100, 40, 2), COLOUR, WRN),
    "TRADES wrn": (lambda: TradesResNet(16, 2), lambda s: wrn(s, 10, 16, 2), COLOUR, WRN),
    "torchvision vit": (
        lambda: tv("VisionTransformer", image_size=16, patch_size=4, num_layers=12, num_heads=3, hidden_dim=192,
                   mlp_dim=768, num_classes=5),
        lambda s: timm_model(s, 5, "vit_tiny_patch16_224"), COLOUR, "torchvision ViT"),
    "CMI vgg11_bn": (lambda: BlockVGG(11), lambda s: vgg(s, 10, 11, pools=3), (3, 32, 32), BLOCKED),
    "CMI vgg13_bn, 64 pixels": (lambda: BlockVGG(13), lambda s: vgg(s, 10, 13, pools=4), (3, 64, 64), BLOCKED),
    "CMI vgg11": (
        lambda: BlockVGG(11, batch_norm=False), lambda s: vgg(s, 10, 11, batch_norm=False, pools=3),
        (3, 32, 32), BLOCKED),
    "kuangliu vgg11": (lambda: FeaturesVGG(11), lambda s: vgg(s, 10, 11), (3, 32, 32), FEATURES),
    "kuangliu vgg13 without BN": (
        lambda: FeaturesVGG(13, batch_norm=False), lambda s: vgg(s, 10, 13, batch_norm=False), (3, 32, 32), FEATURES),
    "vgg11 with dropout and two hidden layers": (
        lambda: FeaturesVGG(11, hidden=(32, 16), dropout=True), lambda s: vgg(s, 10, 11, hidden=(32, 16)),
        (3, 32, 32), FEATURES),
    "torchvision vgg11_bn, narrow head": (
        lambda: FeaturesVGG(11, hidden=(20, 30), grid=7), lambda s: vgg(s, 10, 11, grid=7, hidden=(20, 30)),
        (3, 32, 32), FEATURES),
    "vgg13 with fc": (lambda: FeaturesVGG(13, named="fc"), lambda s: vgg(s, 10, 13), (3, 32, 32), FEATURES),
    "CAKE cnn": (CakeCNN, lambda s: cnn(s, 10), (1, 28, 28), "CAKE CNN"),
    "CAKE cnn, 32 pixels": (lambda: CakeCNN(3, 7), lambda s: cnn(s, 7), (3, 32, 32), "CAKE CNN"),
    "CAKE cnn-tiny": (
        lambda: CakeCNN(widths=(8, 16, 16, 16)), lambda s: cnn(s, 10, (8, 16, 16, 16)), (1, 28, 28), "CAKE CNN"),
    "CAKE lenet": (CakeLeNet, lambda s: lenet(s, 10), GREY, "CAKE LeNet"),
    "CAKE lenet-half": (
        lambda: CakeLeNet(widths=(3, 8, 60, 42)), lambda s: lenet_half(s, 10), GREY, "CAKE LeNet"),
    "DAFL lenet": (DaflLeNet, lambda s: lenet(s, 10), GREY, LENET),
    "DAFL lenet-half": (lambda: DaflLeNet(widths=(3, 8, 60, 42)), lambda s: lenet_half(s, 10), GREY, LENET),
    "CAKE mlp": (CakeMLP, lambda s: mlp(s, 2), (2, 1, 1), "CAKE MLP"),
    "CAKE resnet4": (CakeResNet4, lambda s: resnet4(s, 10), GREY, TV),
}  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
@torch.no_grad()
def test_a_network_of_others_computes_the_same_with_our_layers(pair):
    make, own, shape, naming = PAIRS[pair]
    torch.manual_seed(0)
    theirs = randomised(make)
    with on_meta():
        ours = own(shape)
    weights = dict(sorted(theirs.state_dict().items()))  # the order in a file says nothing
    chosen = choose(ours, weights, "teacher.pt", size=shape[-1])
    assert chosen.naming == naming and naming in chosen.words
    ours.load_state_dict(chosen.weights, assign=True)
    images = torch.randn(2, *shape, dtype=torch.float64)
    logits = theirs(images)
    assert logits.isfinite().all() and logits.std() > 1e-3
    assert torch.allclose(ours.eval()(images), logits, rtol=1e-9, atol=1e-9)


# Theirs and ours, for names and shapes only.
LARGE = {
    "CMI resnet34": (lambda: CifarResNet(BLOCKS[34], 1000), lambda s: resnet(s, 1000, BLOCKS[34])),
    "kuangliu vgg16": (lambda: FeaturesVGG(16, classes=1000), lambda s: vgg(s, 1000, 16)),
    "resnet34": (lambda: tv("resnet34"), lambda s: resnet(s, 1000, BLOCKS[34], "conv7_pool")),
    "resnet50": (lambda: tv("resnet50"), lambda s: timm_model(s, 1000, "resnet50", small_stem=False)),
    **{
        f"vgg{depth}{'_bn' * norm}": (
            lambda depth=depth, norm=norm: tv(f"vgg{depth}{'_bn' * norm}"),
            lambda s, depth=depth, norm=norm: vgg(s, 1000, depth, norm, grid=7, hidden=(4096, 4096)),
        )
        for depth in (11, 13, 16, 19)
        for norm in (False, True)
    },
}


@pytest.mark.parametrize("name", LARGE)
def test_large_networks_fit_by_names_and_shapes(name):
    theirs, ours = LARGE[name]
    with on_meta_device():
        chosen = choose(ours((3, 224, 224)), theirs().state_dict(), "teacher.pt")
    assert chosen.naming in (TV, CMI, FEATURES, "timm")


def refusal(net, weights) -> str:
    with pytest.raises(ConfigError) as caught:
        choose(net, weights, "teacher.pt", size=32)
    return str(caught.value)


# Networks that agree with ours in names or shapes, and compute something else.


def test_the_poolings_of_cmis_vgg_are_told_by_its_names():
    weights = BlockVGG(11).state_dict()
    assert "set teacher.network.pools=3" in (said := refusal(vgg((3, 32, 32), 10, 11), weights)) and BLOCKED in said
    with pytest.raises(ConfigError, match=r"set teacher\.network\.pools=4"):
        choose(vgg((3, 64, 64), 10, 11, pools=3), weights, "teacher.pt", size=64)


def test_the_names_of_networks_without_a_pooled_stem_are_not_loaded_into_one():
    said = refusal(resnet((3, 32, 32), 10, stem="conv3_pool"), CifarResNet(BLOCKS[18]).state_dict())
    assert "no max-pooling" in said and "teacher.network.stem" in said


def renumbered(weights: dict, first: int, by: int) -> dict:
    """A state dict in which the layers features.# from a number on have other numbers."""

    def name(key: str) -> str:
        folder, number, *rest = key.split(".")
        later = folder == "features" and int(number) >= first
        return ".".join([folder, str(int(number) + by), *rest]) if later else key

    return {name(key): value for key, value in weights.items()}


def test_poolings_elsewhere_are_told_by_the_numbers_of_the_features():
    weights = renumbered(FeaturesVGG(11).state_dict(), first=4, by=-1)
    assert "ours after [1, 2, 4, 6, 8]" in refusal(vgg((3, 32, 32), 10, 11), weights)


def test_layers_without_weights_that_ours_has_not_are_told_by_the_numbers_of_the_features():
    weights = renumbered(FeaturesVGG(11).state_dict(), first=4, by=2)
    assert "stand layers that ours has not" in refusal(vgg((3, 32, 32), 10, 11), weights)


def test_a_preactivation_resnet_is_not_taken_for_a_resnet():
    said = refusal(resnet((3, 32, 32), 10), CifarResNet(BLOCKS[18], kind=PreActBlock).state_dict())
    assert "do not fit" in said


def test_another_network_whose_layers_are_called_like_cakes_is_refused():
    net = cnn_bn((3, 32, 32), 10, widths=(8, 16, 16), norm="none")
    weights = {f"{theirs}.{part}": value for theirs, layer in
               zip(("conv1", "conv2", "conv3", "fc1"), (net.body[0], net.body[3], net.body[6], net.head), strict=True)
               for part, value in layer.state_dict().items()}  # fmt: skip
    assert "do not fit" in refusal(net, weights)


def test_a_network_that_is_not_dfkds_takes_its_own_names_only():
    net = torch.nn.Sequential(torch.nn.Linear(4, 3))
    assert choose(net, {"0.weight": torch.ones(3, 4), "0.bias": torch.ones(3)}, "f").naming == "dfkd"
    assert "do not fit" in refusal(net, {"fc.weight": torch.ones(3, 4), "fc.bias": torch.ones(3)})


def test_what_a_file_cannot_tell_is_said():
    weights = small_stem(tv("resnet18", num_classes=10)).state_dict()
    assert "teacher.network.stem=conv3_pool" in choose(resnet((3, 32, 32), 10), weights, "f").words
    large = tv("resnet18", num_classes=10).state_dict()
    assert "conv3_pool" not in choose(resnet((3, 32, 32), 10, stem="conv7_pool"), large, "f").words
    assert "max-poolings" in choose(cnn((1, 28, 28), 10), CakeCNN().state_dict(), "f").words


@pytest.mark.parametrize("last", ["fc", "linear", "classifier", "head", "fc.1"])
@pytest.mark.parametrize(("skip", "naming"), [("downsample", TV), ("shortcut", CMI)])
def test_the_last_layer_of_a_resnet_has_one_of_several_names(skip, naming, last):
    with on_meta_device():
        theirs, ours = CifarResNet(BLOCKS[18]).state_dict(), resnet((3, 32, 32), 10)
    weights = {key.replace("linear.", f"{last}.").replace("shortcut", skip): value for key, value in theirs.items()}
    assert choose(ours, weights, "f").naming == naming


# What to set.


def test_parameters_without_running_statistics_are_told():
    net = resnet((3, 32, 32), 10)
    said = refusal(net, dict(CifarResNet(BLOCKS[18]).named_parameters()))
    assert "lack the running statistics of BatchNorm (body.1.running_mean, ...)" in said
    assert said.endswith("save model.state_dict()")


@pytest.mark.parametrize(
    ("net", "weights", "said"),
    [
        (lambda: resnet((3, 32, 32), 10), lambda: tv("resnet18", num_classes=10), "stem=conv7_pool"),
        (lambda: resnet((1, 32, 32), 10), lambda: CifarResNet(BLOCKS[18]), "data.channels=3"),
        (lambda: resnet((3, 32, 32), 10), lambda: CifarResNet(BLOCKS[18], 100), "has 100 classes"),
        (lambda: cnn_bn((1, 32, 32), 10), lambda: cnn_bn((1, 16, 16), 10), "data.size=16"),
        (lambda: vgg((3, 32, 32), 10, 11), lambda: FeaturesVGG(11, hidden=(32, 16)), "network.hidden=[32,16]"),
        (lambda: vgg((3, 32, 32), 10, 11), lambda: FeaturesVGG(11, hidden=(8,), grid=2), "teacher.network.grid=2"),
        (lambda: resnet((3, 32, 32), 10), lambda: CifarResNet(BLOCKS[34]), "network.blocks=[3,4,6,3]"),
        (lambda: wrn((1, 32, 32), 10), lambda: WideResNet(28, 10), "depth=28 teacher.network.widen=10 data.channels=3"),
        (lambda: wrn((3, 32, 32), 10), lambda: WideResNet(22, 4, 100), "has 100 classes"),
        (lambda: cnn((1, 28, 28), 10), lambda: CakeCNN(widths=(8, 16, 16, 16)), "network.widths=[8,16,16,16]"),
        (lambda: lenet((1, 32, 32), 10), lambda: CakeLeNet(widths=(3, 8, 60, 42)), "network.widths=[3,8,60,42]"),
        (lambda: mlp((2, 1, 1), 2), lambda: CakeMLP(hidden=7, layers=2), "network.hidden=7 teacher.network.layers=2"),
        (lambda: wrn((3, 32, 32), 10), lambda: CifarResNet(BLOCKS[34]), "dfkd-inspect teacher.pt"),
    ],
)  # fmt: skip
def test_a_mismatch_says_what_to_set(net, weights, said):
    with on_meta_device():
        ours, theirs = net(), weights().state_dict()
    assert said in refusal(ours, theirs)


def test_layers_that_trades_does_not_use_are_left_out_and_told():
    chosen = choose(wrn((3, 32, 32), 10), TradesResNet(16, 1).state_dict(), "teacher.pt")
    assert "left out beside it: sub_block1.layer.0.bn1.weight" in chosen.words
    own = nn.ModuleDict({"block1": nn.Linear(2, 2), "sub_block1": nn.Linear(2, 2)})  # a user's, which may use it
    assert len(choose(own, own.state_dict(), "teacher.pt").weights) == 4
    with on_meta_device():
        said = refusal(wrn((3, 32, 32), 10), TradesResNet(34, 10).state_dict())
    assert "needs teacher.network.depth=34 teacher.network.widen=10." in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"img_size": 32, "patch_size": 8}, "teacher.network.patch_size=8"),
        ({"img_size": 64, "patch_size": 4}, "data.size=64"),
        ({"img_size": 32, "patch_size": 4, "in_chans": 1}, "patch_embed.proj.weight (192, 1, 4, 4)"),
    ],
)
def test_a_transformer_of_other_patches_or_images_says_what_to_set(options, said):
    with on_meta():
        theirs = timms("vit_tiny_patch16_224", num_classes=10, **options).state_dict()
        ours = timm_model((3, 32, 32), 10, "vit_tiny_patch16_224")
    assert said in refusal(ours, theirs)
