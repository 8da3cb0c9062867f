import json

import pytest
import torch
from torch import nn

from dfkd.errors import ConfigError
from dfkd.models import Classifier, Teacher, cnn_bn, load_classifier, load_weights, mlp, save_classifier, timm_model

NETWORK = {"name": "cnn_bn", "_target_": "dfkd.models.cnn_bn", "widths": [4, 6], "norm": "batch"}


def make(kind=Classifier, shape=(3, 8, 8), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)):
    torch.manual_seed(0)
    return kind(cnn_bn(shape, 5, widths=(4, 6)), shape, 5, list(mean), list(std))


def test_images_are_normalised_per_channel(random):
    model, x = make().eval(), torch.rand(2, 3, 8, 8, generator=random)
    expected = torch.stack([(x[:, c] - (0.1, 0.2, 0.3)[c]) / (0.4, 0.5, 0.6)[c] for c in range(3)], 1)
    assert torch.allclose(model.normalize(x), expected)
    assert torch.allclose(model.denormalize(model.normalize(x)), x, atol=1e-6)
    assert torch.allclose(model(x), model.net(expected), atol=1e-5)


def test_one_number_serves_all_channels():
    model = make(mean=(0.5,), std=(0.25,))
    assert torch.equal(model.normalize(torch.ones(1, 3, 8, 8)), torch.full((1, 3, 8, 8), 2.0))


@pytest.mark.parametrize("training", [True, False])
def test_predict_is_in_evaluation_mode_in_chunks_without_gradients(random, training):
    model, x = make().train(training), torch.rand(7, 3, 8, 8, generator=random)
    buffers = {key: value.clone() for key, value in model.named_buffers()}
    parts, whole = model.predict(x, chunk=3), model.predict(x)
    assert torch.allclose(parts, whole, atol=1e-5) and not whole.requires_grad
    assert model.training == training
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": [0.1, 0.2]}, "3 channels"),
        ({"std": [0.1, 0.2]}, "3 channels"),
        ({"std": [0.1, 0.0, 0.1]}, "positive"),
        ({"classes": 4}, "5 logits, but there are 4 classes"),
        ({"shape": (1, 8, 8), "mean": [0.5], "std": [0.5]}, "cannot take 1x8x8"),
        ({"shape": (3, 16, 16)}, "cannot take 3x16x16"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    given = {"shape": (3, 8, 8), "classes": 5, "mean": [0.1] * 3, "std": [0.2] * 3} | options
    with pytest.raises(ValueError, match=message):
        Classifier(cnn_bn((3, 8, 8), 5), **given)


def test_a_teacher_is_frozen_whatever_is_asked_of_it(random):
    teacher = make(Teacher)
    nn.Sequential(teacher).train()
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    x = torch.rand(2, 3, 8, 8, generator=random, requires_grad=True)
    teacher(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_teacher_counts_its_evaluations_by_purpose():
    teacher, x = make(Teacher), torch.zeros(4, 3, 8, 8)
    teacher(x)
    with teacher.counted_as("synthesis"):
        teacher(x)
        with teacher.counted_as("split"):
            teacher.predict(torch.cat([x, x]), chunk=3)
        teacher.net(x)
    with pytest.raises(RuntimeError), teacher.counted_as("synthesis"):
        raise RuntimeError
    teacher(x[:1])
    assert dict(teacher.evals) == {"other": 5, "synthesis": 8, "split": 8}


def test_a_saved_classifier_loads_with_the_same_answers(tmp_path, random):
    model = make()
    model(torch.rand(9, 3, 8, 8, generator=random))  # moves the running statistics
    model = model.to(memory_format=torch.channels_last).eval()
    save_classifier(model, NETWORK, tmp_path, "student")
    loaded = load_classifier(tmp_path / "student.json")
    x = torch.rand(4, 3, 8, 8, generator=random)
    assert torch.allclose(loaded(x), model(x), atol=1e-6)
    assert not loaded.training
    assert (loaded.shape, loaded.classes) == ((3, 8, 8), 5)
    assert "load_classifier" in json.loads((tmp_path / "student.json").read_text())["load"]


def test_a_timm_network_is_saved_and_loaded(tmp_path, random):
    network = {"_target_": "dfkd.models.timm_model", "name": "timm", "model": "test_resnet"}
    model = Classifier(timm_model((3, 16, 16), 4, "test_resnet"), (3, 16, 16), 4, [0.5], [0.5]).eval()
    save_classifier(model, network, tmp_path, "t")
    x = torch.rand(2, 3, 16, 16, generator=random)
    assert torch.allclose(load_classifier(tmp_path / "t.json")(x), model(x), atol=1e-5)


def test_a_network_of_ones_own_is_handed_in(tmp_path, random):
    torch.manual_seed(0)
    own = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    model = Classifier(own, (3, 8, 8), 5, [0.5], [0.5]).eval()
    save_classifier(model, {"_target_": "mine.net"}, tmp_path, "own")
    loaded = load_classifier(tmp_path / "own.json", net=nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))
    x = torch.rand(2, 3, 8, 8, generator=random)
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("target", ["os.system", "mine.net", "dfkd.models.nothing", "dfkd.store.store.Store", ""])
def test_a_json_file_names_networks_of_this_package_only(tmp_path, target):
    save_classifier(make(), NETWORK | {"_target_": target}, tmp_path, "student")
    with pytest.raises(ConfigError, match=r"not one of dfkd\.models"):
        load_classifier(tmp_path / "student.json")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="student"):
        load_classifier(tmp_path / "student.json")
    save_classifier(make(), NETWORK, tmp_path, "student")
    (tmp_path / "student.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="student"):
        load_classifier(tmp_path / "student.json")


def test_weights_that_do_not_fit_are_told_by_name():
    net, other = mlp((3, 8, 8), 5, layers=2), mlp((3, 8, 8), 4, layers=1).state_dict()
    before = net.body[1].weight.clone()
    del other["head.bias"]
    other["extra"] = torch.zeros(1)
    with pytest.raises(ConfigError) as caught:
        load_weights(net, other, "somewhere")
    said = str(caught.value)
    assert "weights in somewhere do not fit" in said
    assert "missing: body.3.bias, body.3.weight, head.bias;" in said
    assert "not in this network: extra;" in said
    assert "wrong shape: head.weight (4, 20) instead of (5, 20)." in said
    assert torch.equal(net.body[1].weight, before)
