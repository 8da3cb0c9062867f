"""Weights are found behind every wrapping, in any order and any number."""

import itertools

import pytest
import torch
from torch import nn

from dfkd.errors import ConfigError
from dfkd.models import cnn_bn, timm_model
from dfkd.weights import choose
from dfkd.weights.entries import entries


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return cnn_bn((1, 8, 8), 3, widths=(4,))


WEIGHTS = network().state_dict()
OTHER = network(seed=1).state_dict()


def under(prefix: str, weights: dict) -> dict:
    return {f"{prefix}.{key}": value for key, value in weights.items()}


def averaged(weights: dict) -> dict:
    return {"n_averaged": torch.tensor(3), **under("module", weights)}


def profiled(weights: dict) -> dict:
    layers = {key.rpartition(".")[0] for key in weights}
    counts = {f"{layer}.{name}": torch.zeros(1) for layer in layers for name in ("total_ops", "total_params")}
    return {**weights, **counts, "total_ops": torch.zeros(1), "total_params": torch.zeros(1)}


WRAPPINGS = {
    "parallel": lambda w: under("module", w),
    "compiled": lambda w: under("_orig_mod", w),
    "lightning": lambda w: {**under("model", w), "criterion.weight": torch.ones(3)},
    "student": lambda w: under("student", w),
    "averaged": averaged,
    "profiled": profiled,
    "one in a Sequential": lambda w: under("1", w),
}
HOLDERS = {
    **{key: (lambda w, key=key: {key: w, "epoch": 3}) for key in
       ("state_dict", "model", "net", "ema", "teacher", "weights", "my own key")},
    "list": lambda w: [1, {"lr": 0.1}, w],
    "with its optimizer": lambda w: {"model": w, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "lr": 1}},
}  # fmt: skip


def right(held: object, entry: str | None = None, weights: dict = WEIGHTS) -> bool:
    chosen = choose(network(2), held, "w.pt", entry)
    return chosen.weights.keys() == weights.keys() and all(torch.equal(chosen.weights[k], weights[k]) for k in weights)


@pytest.mark.parametrize("names", [*itertools.permutations(WRAPPINGS, 2), *((name,) for name in WRAPPINGS)])
def test_wrappings_in_any_order_and_number(names):
    weights = WEIGHTS
    for name in names:
        weights = WRAPPINGS[name](weights)
    assert right(weights) and right({"state_dict": weights})


@pytest.mark.parametrize("holder", HOLDERS)
def test_dictionaries_of_any_key(holder):
    assert right(HOLDERS[holder](WEIGHTS)) and right({"state_dict": HOLDERS[holder](under("module", WEIGHTS))})


def test_all_at_once():
    weights = WEIGHTS
    for wrap in WRAPPINGS.values():
        weights = wrap(weights)
    for hold in HOLDERS.values():
        weights = hold(weights)
    with pytest.raises(ConfigError):  # that is deeper than anybody's
        choose(network(), weights, "w.pt")
    assert right({"a": {"model": [profiled(averaged(under("model._orig_mod", under("net", WEIGHTS))))]}})


def test_wrapped_parts_inside_a_network():
    half = {("body.module.0" + key[6:] if key.startswith("body.0") else key): v for key, v in WEIGHTS.items()}
    assert right(half)


def test_missing_counters_of_batch_norm_are_no_reason_to_refuse():
    weights = {key: value for key, value in WEIGHTS.items() if "num_batches_tracked" not in key}
    chosen = choose(network(), weights, "w.pt")
    assert chosen.weights.keys() == weights.keys()


def test_several_that_fit_are_listed_and_one_can_be_chosen():
    held = {"model": WEIGHTS, "ema": under("module", OTHER), "epoch": 4}
    with pytest.raises(ConfigError, match=r"2 networks that fit: 'model', 'ema'; choose one.*teacher\.entry=model"):
        choose(network(), held, "w.pt")
    assert right(held, "model") and right(held, "ema", OTHER)
    with pytest.raises(ConfigError, match="no entry 'emma'; entries: 'model', 'ema'"):
        choose(network(), held, "w.pt", "emma")


def test_teacher_and_student_of_a_lightning_module():
    held = {"state_dict": under("teacher", WEIGHTS) | under("student", OTHER)}
    with pytest.raises(ConfigError, match=r"'state_dict\.teacher', 'state_dict\.student'"):
        choose(network(), held, "w.pt")
    assert right(held, "state_dict.student", OTHER) and right(held, "state_dict.teacher")


def test_the_same_tensors_under_two_names_are_one_network():
    assert right({"model": WEIGHTS, "best": WEIGHTS})


def test_one_that_fits_is_taken_beside_others_that_do_not():
    torch.manual_seed(0)
    other = cnn_bn((3, 16, 16), 5).state_dict()
    assert right({"student": WEIGHTS, "teacher": other}) and right(under("a", WEIGHTS) | under("b", other))


def test_what_is_left_out_is_said():
    said = choose(network(), {"state_dict": WRAPPINGS["lightning"](averaged(WEIGHTS))}, "w.pt").words
    assert "'state_dict.model'" in said and "criterion.weight" in said and "AveragedModel" in said


@pytest.mark.parametrize(
    "name",
    ["normalize.{}", "normalizer.{}", "0.{}", "{}", "_{}", "image_{}", "model.norm.{}"],
)
def test_a_normalisation_in_front_is_found(name):
    mean, std = torch.full((1, 3, 1, 1), 0.25), torch.tensor([0.5, 0.25, 0.125])
    held = {name.format("mean"): mean, name.format("std"): std, **under("model.net", WEIGHTS)}
    chosen = choose(network(), held, "w.pt").entry
    assert chosen.mean == (0.25,) * 3 and chosen.std == (0.5, 0.25, 0.125)


def test_two_different_normalisations_are_none():
    held = under("a", {"mean": torch.tensor(0.5), "std": torch.tensor(1.0)}) | under("b", {"mean": torch.tensor(0.1)})
    assert choose(network(), held | under("net", WEIGHTS), "w.pt").entry.mean == ()


def test_two_networks_that_only_a_wrapper_tells_apart_are_not_mixed():
    found = entries(WEIGHTS | under("module", OTHER))
    assert len(found[0].tensors) == 2 * len(WEIGHTS)


def test_a_timm_state_dict_fits_with_and_without_our_beginning():
    torch.manual_seed(0)
    net = timm_model((3, 32, 32), 4, "test_resnet")
    for weights in (net.state_dict(), net.net.state_dict(), under("module", net.net.state_dict())):
        assert choose(net, weights, "w.pt").weights.keys() == net.state_dict().keys()


def test_nothing_by_name_is_refused():
    with pytest.raises(ConfigError, match="holds no tensors by name"):
        choose(network(), {"epoch": 3, "args": [1, torch.ones(2)]}, "w.pt")
