"""`dfkd-inspect`: what a file holds, what it fits, and a command that works."""

import io
import os
import pickle
import shlex
import sys

import pytest
import torch
from foreign import BlockVGG, FeaturesVGG, WideResNet
from runner import composed
from safetensors.torch import save_file

from dfkd.cli.inspect import cli, quoted, report
from dfkd.models import Classifier, cnn, cnn_bn, lenet, resnet, save_classifier, vgg, wrn


def inspected(file, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        cli([str(file)])
    return caught.value.code, capsys.readouterr().out


def test_it_says_what_a_file_holds_what_fits_and_the_command(tmp_path, capsys):
    weights = {f"module.{key}": value for key, value in wrn((3, 32, 32), 100, 16, 1).state_dict().items()}
    torch.save({"ema": weights, "net": wrn((3, 32, 32), 100, 16, 1).state_dict()}, tmp_path / "a b.pt")
    code, said = inspected(tmp_path / "a b.pt", capsys)
    assert code == 0
    for words in (
        "'ema': ",
        "DataParallel",
        "wrn_16_1: 'ema', named as in dfkd; 3 channels, 100 classes",
        "not in the",
    ):
        assert words in said
    words = shlex.split(said[said.index("  dfkd teacher=") :])
    assert f"teacher.path='{tmp_path / 'a b.pt'}'" in words and "teacher.entry=ema" in words
    assert "network@teacher.network=wrn_16_1" in words and "domain@ntl_scenario.id=cifar100" in words


@pytest.mark.parametrize(
    ("net", "network", "settings"),
    [
        (lambda: cnn((1, 28, 28), 10), "cnn", []),
        (lambda: cnn_bn((1, 16, 16), 7), "cnn_bn", ["data.channels=1", "data.size=16"]),
        (lambda: resnet((1, 32, 32), 12, stem="conv7_pool"), "resnet18", ["teacher.network.stem=conv7_pool"]),
        (lambda: resnet((3, 32, 32), 200, (3, 4, 6, 3)), "resnet34", []),
        (lambda: vgg((3, 32, 32), 10, 13, batch_norm=False), "vgg13", []),
        (lambda: lenet((1, 28, 28), 10, (3, 8, 60, 42)), "lenet_half", ["data.channels=1"]),
    ],
)  # fmt: skip
def test_it_finds_the_network_and_its_settings(tmp_path, net, network, settings):
    torch.manual_seed(0)
    own = net()
    save_file(own.state_dict(), tmp_path / "w.safetensors")
    _, fits = report(tmp_path / "w.safetensors")
    assert [fit.network for fit in fits] == [network] and fits[0].classes == own.head.out_features
    assert set(settings) <= set(fits[0].settings.overrides())


def fits_of(tmp_path, theirs) -> list[tuple[str, list[str], int]]:
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    return [(fit.network, fit.settings.overrides(), fit.classes) for fit in report(tmp_path / "w.pt")[1]]


def test_networks_of_others_and_of_other_depths(tmp_path):
    assert fits_of(tmp_path, WideResNet(22, 1, 7)) == [
        ("wrn_16_1", ["teacher.network.depth=22", "teacher.network.widen=1"], 7)
    ]
    assert fits_of(tmp_path, BlockVGG(11)) == [("vgg11_bn", ["teacher.network.pools=3"], 10)]
    assert fits_of(tmp_path, FeaturesVGG(11, False, hidden=(8,))) == [("vgg11", ["teacher.network.hidden=[8]"], 10)]


def test_a_timm_network_where_no_other_fits(tmp_path):
    import timm

    net = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=16, patch_size=8)
    assert fits_of(tmp_path, net)[0] == ("vit", ["teacher.network.patch_size=8", "data.size=16"], 5)


def test_a_transformer_of_torchvision(tmp_path):
    from torchvision.models import VisionTransformer

    net = VisionTransformer(16, 8, 12, 3, 192, 768, num_classes=5)
    assert fits_of(tmp_path, net)[0] == ("vit", ["teacher.network.patch_size=8", "data.size=16"], 5)


def test_what_dfkd_wrote_brings_its_normalisation(tmp_path, capsys):
    net = cnn_bn((1, 16, 16), 10)
    save_classifier(Classifier(net, (1, 16, 16), 10, [0.25], [0.5]), {}, tmp_path, "student")
    code, said = inspected(tmp_path / "student.safetensors", capsys)
    assert code == 0 and "'teacher.mean=[0.25]' 'teacher.std=[0.5]'" in said


def test_a_normalisation_in_the_file_is_told(tmp_path, capsys):
    layer = {"normalize.mean": torch.full((3,), 0.5), "normalize.std": torch.full((3,), 0.25)}
    weights = {f"net.{key}": value for key, value in WideResNet(16, 1).state_dict().items()}
    torch.save(layer | weights, tmp_path / "w.pt")
    code, said = inspected(tmp_path / "w.pt", capsys)
    assert code == 0 and "[0.5, 0.5, 0.5] and [0.25, 0.25, 0.25]" in said and "teacher.mean=[" not in said


@pytest.mark.parametrize(
    "held",
    [
        {"a.weight": torch.ones(2, 3)},
        {"pos_embed": torch.ones(1, 65, 192), "a": torch.tensor(1.0), ".": torch.ones(0)},
        {"epoch": 3},
    ],
)
def test_where_nothing_fits_the_exit_code_is_1(tmp_path, capsys, held):
    torch.save(held, tmp_path / "w.pt")
    code, said = inspected(tmp_path / "w.pt", capsys)
    assert (code == 1 and "no network of conf/network" in said) or "holds no tensors" in code


def test_a_terminal_without_a_sign_of_the_name_shows_another(tmp_path, monkeypatch):
    torch.save(lenet((1, 32, 32), 10).state_dict(), tmp_path / "größe.pt")
    there = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(there, encoding="ascii"))
    with pytest.raises(SystemExit) as caught:
        cli([str(tmp_path / "größe.pt")])
    sys.stdout.flush()
    assert caught.value.code == 0 and b"gr??e.pt" in there.getvalue()


def test_a_pickle_is_refused_and_not_run(tmp_path, capsys):
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"weights": RunsCode(tmp_path / "it-ran")}))
    code, _ = inspected(tmp_path / "w.pt", capsys)
    assert "could run code" in code and not (tmp_path / "it-ran").exists()


class RunsCode:
    """A pickle that makes a folder when it is read."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize(
    "text",
    [
        "plain/w.pt",
        "a b.pt",
        "a=b,c.pt",
        "it's.pt",
        "(1) [2] {3}.pt",
        "back\\slash.pt",
        "ü/日本.pt",
        "a/~b.pt",
        "${x}'.pt",
    ],
)
def test_paths_are_quoted_as_hydra_reads_them(text):
    assert composed(f"data.root={quoted(text)}").data.root == text
