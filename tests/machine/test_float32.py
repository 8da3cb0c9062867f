"""What float32 means: torch's flags for a GPU, which exist on a CPU, too."""

import warnings

import pytest
import torch
from runner import CAKE, DFQ, NOISE, a_few, make_cell

from dfkd.attacks import PGD
from dfkd.attacks.radius import first_order_radius, flip_radius
from dfkd.machine import precision
from dfkd.machine.precision import exact_float32, float32_arithmetic, has_tf32
from dfkd.machine.runtime import Runtime, make_runtime
from dfkd.run.run_cell import run_cell
from dfkd.stages.precision import fastest, in_words

CPU = torch.device("cpu")
Flags = dict[str, object]


def flags() -> Flags:
    """torch's flags: the newer ones, and the older ones, which raise an error if they contradict the newer ones."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    return {
        "convolutions": cudnn.conv.fp32_precision,
        "recurrent": cudnn.rnn.fp32_precision,
        "products": products.fp32_precision,
        "older": (cudnn.allow_tf32, products.allow_tf32),
        "oldest": torch.get_float32_matmul_precision(),
    }


IEEE = {"convolutions": "ieee", "recurrent": "ieee", "products": "ieee", "older": (False, False), "oldest": "highest"}
TF32 = IEEE | {"convolutions": "tf32", "recurrent": "tf32", "older": (True, False)}


@pytest.fixture(autouse=True)
def a_users_flags():
    """Those with which torch starts; they have to be there again."""
    before = flags()
    yield before
    assert flags() == before


@pytest.fixture
def gpu(monkeypatch):
    """A runtime of a GPU with TF32, whose tensors lie on the CPU."""
    monkeypatch.setattr("dfkd.machine.runtime.has_tf32", lambda device: True)
    return Runtime(CPU, "tf32")


@pytest.mark.parametrize(("convolutions", "expected"), [("ieee", IEEE), ("tf32", TF32)])
def test_the_flags_are_set_and_restored_without_a_warning(convolutions, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyError), float32_arithmetic(convolutions):
            assert flags() == expected
            raise KeyError


def test_a_users_own_flags_are_restored():
    with float32_arithmetic("tf32"):
        torch.backends.cuda.matmul.allow_tf32 = True
        before = flags()
        with float32_arithmetic("ieee"):
            assert flags() == IEEE
        assert flags() == before and before["products"] == "tf32"


def test_tf32_is_on_in_passes_and_their_gradients_alone(gpu):
    with float32_arithmetic("ieee"):
        for block in (gpu.autocast, gpu.gradients):
            with block():
                assert flags() == TF32
            assert flags() == IEEE
    for other in ("float32", "bfloat16"):
        with float32_arithmetic("ieee"), Runtime(CPU, other).autocast(), Runtime(CPU, other).gradients():
            assert flags() == IEEE


def test_exact_means_exact_whatever_is_around_it(gpu):
    images = torch.ones(2, 2)
    with gpu.autocast(), torch.autocast("cpu", torch.bfloat16):
        assert (images @ images).dtype == torch.bfloat16
        with exact_float32(CPU):
            assert flags() == IEEE and (images @ images).dtype == torch.float32


@pytest.fixture
def seen(linear):
    """A classifier, and the flags in each of its forward passes."""
    model, noted = linear([[1.0, -2.0], [0.5, 1.0]]), []
    model.net.register_forward_pre_hook(lambda *_: noted.append(flags()))
    return model, noted


def test_attacks_and_radii_are_exact_inside_a_step_of_another_precision(gpu, seen, random):
    model, noted = seen
    images = torch.rand(4, 1, 2, 1, generator=random)
    logits = model(images)
    noted.clear()
    with gpu.autocast():
        PGD(eps=0.1, steps=2).attack(model, images, random)
        first_order_radius(model, images, logits)
        flip_radius(PGD(eps=0.1, steps=2), model, images, logits, random, halvings=2)
    assert len(noted) > 8 and all(one == IEEE for one in noted)


RUNS = {"noise": NOISE, "cake": CAKE, "dfq": ("synthesizer=dfq", *DFQ)}


@pytest.mark.parametrize("name", a_few(RUNS, "dfq"))
def test_a_run_sets_the_flags_and_names_its_precision(tmp_path, monkeypatch, name):
    """With tf32, the passes and gradients of training and synthesis have it; everything else has IEEE float32."""
    monkeypatch.setattr("dfkd.machine.runtime.has_tf32", lambda device: True)
    asked = []
    monkeypatch.setattr(precision, "_set_flags", lambda *wanted: asked.append(wanted))
    monkeypatch.setattr(precision, "_flags", lambda: asked[-1] if asked else ("before",) * 3)
    result = run_cell(make_cell(tmp_path, *RUNS[name], "runtime.precision=tf32"))
    assert result["precision"] == "tf32"
    assert asked[0] == ("ieee",) * 3 and asked[-1] == ("before",) * 3
    assert set(asked[1:-1]) == {("tf32", "tf32", "ieee"), ("ieee",) * 3}


def test_only_gpus_from_ampere_on_have_tf32(monkeypatch):
    assert not has_tf32(CPU)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for capability, expected in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert has_tf32(torch.device("cuda", 0)) == expected


def test_auto_begins_with_the_least_exact_precision_of_the_hardware(monkeypatch):
    monkeypatch.setattr("dfkd.machine.runtime.multiplies_bfloat16", lambda device: False)
    assert make_runtime("cpu").precision == "float32"
    monkeypatch.setattr("dfkd.machine.runtime.has_tf32", lambda device: True)
    assert make_runtime("cpu").precision == "tf32"
    monkeypatch.setattr("dfkd.machine.runtime.multiplies_bfloat16", lambda device: True)
    assert make_runtime("cpu").precision == "bfloat16"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((3.0, 1.0, 1.0), "tf32"),  # no faster than the more exact one
        ((3.0, 2.9, 1.0), "bfloat16"),
        ((3.0, 1.0, 0.5), "bfloat16"),
        ((3.0, 2.9, 2.9), "float32"),
        ((3.0, 2.0, 1.9), "tf32"),
    ],
)
def test_within_the_noise_the_more_exact_precision_is_taken(seconds, expected):
    named = dict(zip(("float32", "tf32", "bfloat16"), seconds, strict=True))
    assert fastest(named) == expected


def test_the_gains_are_told():
    assert in_words({"float32": 3.0, "tf32": 2.0, "bfloat16": 1.0}) == "tf32 is 1.50 and bfloat16 is 3.00 times as fast"
