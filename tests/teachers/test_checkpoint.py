import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from dfkd.errors import ConfigError
from dfkd.models import cnn_bn, mlp, timm_model
from dfkd.scenarios import none
from dfkd.teachers import Checkpoint
from dfkd.weights import read as read_weights


def network(seed: int = 0):
    torch.manual_seed(seed)
    return cnn_bn((1, 8, 8), 3, widths=(4,))


WEIGHTS = network().state_dict()


def loaded(path):
    net = network(seed=1)
    Checkpoint(net, str(path), [0.5], [0.5])
    return net.state_dict()


def same(found: dict) -> bool:
    return all(torch.equal(found[key], WEIGHTS[key]) for key in WEIGHTS)


def test_safetensors_load(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert same(loaded(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model": w, "lr": 0.1},
        lambda w: {"net": w, "acc": 95.0},
        lambda w: {"state_dict": {"model": w}},
        lambda w: {f"module.{key}": value for key, value in w.items()},
        lambda w: {"state_dict": {f"module.{key}": value for key, value in w.items()}, "epoch": 1},
    ],
)
def test_state_dicts_load_plain_wrapped_and_prefixed(tmp_path, wrap, old_format):
    torch.save(wrap(WEIGHTS), tmp_path / "w.pt", _use_new_zipfile_serialization=not old_format)
    assert same(loaded(tmp_path / "w.pt"))


def test_a_bare_timm_state_dict_loads(tmp_path):
    torch.manual_seed(0)
    torch.save(timm_model((3, 32, 32), 4, "test_resnet").net.state_dict(), tmp_path / "timm.pt")
    net = timm_model((3, 32, 32), 4, "test_resnet")
    Checkpoint(net, str(tmp_path / "timm.pt"), [0.5], [0.5])
    again = read_weights(tmp_path / "timm.pt")
    assert all(torch.equal(value, again[key]) for key, value in net.net.state_dict().items())


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "torch_legacy", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_its_code_not_run(tmp_path, how):
    trace, file = tmp_path / "owned", tmp_path / "w.pt"
    content = {**WEIGHTS, "extra": Malicious(trace)}
    if how == "pickle":
        file.write_bytes(pickle.dumps({"extra": Malicious(trace)}))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(ConfigError, match=r"could run code.*safetensors") as caught:
        loaded(file)
    assert "weights_only" not in str(caught.value)  # torch's message recommends weights_only=False
    assert not trace.exists()


def test_a_whole_pickled_network_is_refused(tmp_path):
    torch.save(network(), tmp_path / "net.pt")
    with pytest.raises(ConfigError, match="refused"):
        loaded(tmp_path / "net.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "legacy.pt"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_called_truncated(tmp_path, name, share):
    file = tmp_path / name
    if name == "w.safetensors":
        save_file(WEIGHTS, file)
    else:
        torch.save(WEIGHTS, file, _use_new_zipfile_serialization=name == "w.pt")
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ConfigError, match=f"{name}.*truncated") as caught:
        loaded(file)
    assert "could run code" not in str(caught.value)


@pytest.mark.parametrize("old_format", [False, True])
def test_wherever_a_file_was_cut_the_error_names_it(tmp_path, old_format):
    torch.save(WEIGHTS, tmp_path / "w.pt", _use_new_zipfile_serialization=not old_format)
    content = (tmp_path / "w.pt").read_bytes()
    for percent in range(0, 100, 2):
        (tmp_path / "w.pt").write_bytes(content[: percent * len(content) // 100])
        with pytest.raises(ConfigError, match=r"w\.pt"):
            read_weights(tmp_path / "w.pt")


def test_a_file_of_another_kind_is_a_clear_error(tmp_path):
    (tmp_path / "notes.pt").write_text("these are not weights\n" * 20)
    with pytest.raises(ConfigError, match=r"notes\.pt"):
        loaded(tmp_path / "notes.pt")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no checkpoint .*gone\.pt.*teacher\.path"):
        loaded(tmp_path / "gone.pt")
    with pytest.raises(ConfigError, match="no checkpoint"):
        loaded(tmp_path)
    with pytest.raises(ConfigError, match=r"teacher\.path"):
        Checkpoint(network(), "", [0.5], [0.5])


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3, "args": [1, 2]}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="holds no tensors"):
        loaded(tmp_path / "w.pt")


def test_weights_of_another_network_name_what_does_not_fit(tmp_path):
    torch.save(WEIGHTS, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"do not fit.*missing: .*not in this network: .*body\.0\.weight"):
        Checkpoint(mlp((1, 8, 8), 3), str(tmp_path / "w.pt"), [0.5], [0.5])
    with pytest.raises(ConfigError, match=r"head\.weight \(3, 64\) instead of \(5, 64\)"):
        Checkpoint(cnn_bn((1, 8, 8), 5, widths=(4,)), str(tmp_path / "w.pt"), [0.5], [0.5])


def test_the_teacher_is_the_checkpoint_with_its_own_normalisation(tmp_path, tiny_domain, runtime):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    kind = Checkpoint(network(1), str(tmp_path / "w.safetensors"), [0.25], [0.5])
    scenario = none(tiny_domain())
    kind.check(scenario)
    model = kind.train(scenario, runtime, 0, lambda epoch, metrics: None)
    x = scenario.id.val.pixels()
    reference = network().eval()
    with torch.no_grad():
        assert torch.allclose(model.predict(x), reference((x - 0.25) / 0.5), atol=1e-5)
    assert not model.training


def test_images_or_classes_that_do_not_fit_are_refused(tmp_path, tiny_domain):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    kind = Checkpoint(network(), str(tmp_path / "w.safetensors"), [0.5], [0.5])
    with pytest.raises(ValueError, match=r"3 logits.*4 classes"):
        kind.check(none(tiny_domain(classes=4)))
    with pytest.raises(ValueError, match="3x8x8"):
        kind.check(none(tiny_domain(shape=(3, 8, 8))))
    with pytest.raises(ValueError, match="mean"):
        Checkpoint(network(), str(tmp_path / "w.safetensors"), [0.5, 0.5], [0.5]).check(none(tiny_domain()))


def test_the_log_says_how_the_layers_were_named(tmp_path, caplog):
    torch.save({"ema": WEIGHTS}, tmp_path / "w.pt")
    with caplog.at_level("INFO", logger="dfkd"):
        loaded(tmp_path / "w.pt")
    assert [record.getMessage().strip() for record in caplog.records] == [
        f"teacher from {tmp_path / 'w.pt'}: 'ema', named as here"
    ]


def test_one_of_several_networks_can_be_chosen(tmp_path):
    torch.save({"ema": WEIGHTS, "model": network(seed=5).state_dict()}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"2 networks that fit.*teacher\.entry=ema"):
        loaded(tmp_path / "w.pt")
    net = network(seed=1)
    Checkpoint(net, str(tmp_path / "w.pt"), [0.5], [0.5], entry="ema")
    assert same(net.state_dict())


def test_a_normalisation_in_the_file_is_used_and_not_contradicted(tmp_path):
    path, layer = str(tmp_path / "w.pt"), {"normalize.mean": torch.tensor([0.25]), "normalize.std": torch.tensor([0.5])}
    torch.save(layer | {f"net.{key}": value for key, value in WEIGHTS.items()}, path)
    for given in ((), ([0.25], [0.5]), (None, [0.5])):
        kind = Checkpoint(network(1), path, *given)
        assert (kind.mean, kind.std) == ([0.25], [0.5])
    with pytest.raises(ConfigError, match=r"teacher\.mean=\[0\.3\], but the network .* mean \[0\.25\].*leave"):
        Checkpoint(network(1), path, [0.3], [0.5])


def test_a_normalisation_that_nobody_says_is_asked_for(tmp_path):
    torch.save(WEIGHTS, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"teacher\.std is missing.*set teacher\.std"):
        Checkpoint(network(1), str(tmp_path / "w.pt"), [0.5])
