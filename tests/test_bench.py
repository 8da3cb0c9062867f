"""The benchmark at toy size: its rows come out, and its checks can fail."""

import json
import math
import sys

import pytest
import torch
from elsewhere import ELSEWHERE, elsewhere
from runner import ROOT, a_few
from test_scripts import script

import dfkd.synthesizers.cake as cake_module
import dfkd.training.augment
from dfkd.attacks import PGD
from dfkd.distill import SiblingDistillation, Trainer
from dfkd.machine.runtime import Runtime, make_runtime
from dfkd.models.up_conv import UpConv2d
from dfkd.priors import BatchNormPrior
from dfkd.recipe import Stepper

sys.path.append(str(ROOT / "scripts"))
from benchmark import commands, flops, measure, table

# Those that are compared with a plain path in this process, and their goals on a GPU.
GOALS = {
    "cnn_synthesis": [1.5, 5],
    "resnet_synthesis": [0.85, 5, 320],
    "student": [1.5],
    "views": [9],
    "replicas": [1.6, 1.6],
    "teacher": [1.3],
    "generator": [1],
    "dfq": [0.95, 0.95],
    "atesc": [0.6, 0.6, 0.6, 1.35, 1.2, 1.35, 1.2],
    "bn_prior": [1.15],
}


@pytest.fixture(scope="module")
def program():
    return script("bench")


@pytest.fixture
def bench(tmp_path):
    return measure.Bench(Runtime(torch.device("cpu")), repeats=1, toy=True, folder=tmp_path)


@pytest.mark.parametrize("case", GOALS)
def test_a_fast_path_is_the_plain_one(case, program, bench, monkeypatch):
    monkeypatch.setattr(bench, "_goal", lambda kind, cpu, gpu: measure.Goal(kind, cpu if gpu is None else gpu))
    rows = program.measure(bench, [case])
    assert [row.goal.value for row in rows] == GOALS[case]
    for row in rows:
        assert row.checks and row.correct, row.checks
        assert math.isfinite(row.median) and row.median > 0


@pytest.mark.parametrize("case", a_few(GOALS, "cnn_synthesis", "student", "teacher"))
def test_what_is_measured_stays_on_its_device(case, program, tmp_path):
    with elsewhere():
        (row, *_) = program.measure(measure.Bench(Runtime(ELSEWHERE), 1, True, tmp_path), [case])
    assert row.correct


def test_a_row_without_a_goal_misses_none(program, bench):
    (row,) = program.measure(bench, ["matrix_product"])
    assert row.goal is None and row.met and row.correct and row.median > 0
    assert "| matrix product, 64 x 64, float32 | the clock |" in (text := table.as_markdown([row], {"command": "c"}))
    assert "| none |  |" in text and table.as_json([row], {})["rows"][0]["goal"] is None


def test_plain_float32_is_no_tf32_while_it_is_measured(program, bench, monkeypatch):
    seen = []
    monkeypatch.setitem(program.CASES, "student", lambda _: seen.append(torch.backends.cudnn.conv.fp32_precision) or [])
    program.measure(bench, ["student"])
    assert seen == ["ieee"]


def test_operations_are_counted_forwards_and_backwards():
    layer, pixels = torch.nn.Conv2d(3, 5, 3, padding=1), 8 * 8
    net, once = torch.nn.Sequential(layer, torch.nn.Flatten(), torch.nn.Linear(5 * pixels, 2)), 2 * 5 * pixels
    forward = once * (27 + 2)
    assert flops.per_image(net, (3, 8, 8)) == forward
    assert flops.per_image(net, (3, 8, 8), "inputs") == 2 * forward
    assert flops.per_image(net, (3, 8, 8), "weights") == 2 * forward + once * 2  # images need no gradient


def scaled(function, factor):
    return lambda *arguments, **named: factor * function(*arguments, **named)


def wrong_contrast(patch):
    patch.setattr(cake_module, "contrast_mse", scaled(cake_module.contrast_mse, 1.2))


def wrong_rate(patch):
    step = Stepper.step

    def lower(self, loss):
        for group in self.optimizer.param_groups:
            group["lr"] *= 0.95
        step(self, loss)

    patch.setattr(Stepper, "step", lower)


def wrong_answers(patch):
    answers = Trainer._run_teacher
    patch.setattr(Trainer, "_run_teacher", lambda *arguments: [1.2 * each for each in answers(*arguments)])


def wrong_shift(patch):
    crop = dfkd.training.augment.crop
    patch.setattr(dfkd.training.augment, "crop", lambda images, *drawn: crop(images, *drawn).flip(3))


def wrong_norm(patch):
    patch.setattr(BatchNormPrior, "__call__", scaled(BatchNormPrior.__call__, 1.2))


def wrong_attack(patch):
    attack = PGD.attack

    def forgetful(self, *arguments, stop_when_flipped=True):
        result = attack(self, *arguments, stop_when_flipped=stop_when_flipped)
        result.flipped[0] ^= stop_when_flipped
        return result

    patch.setattr(PGD, "attack", forgetful)


def wrong_batches(patch):
    views = SiblingDistillation._load_batches
    patch.setattr(SiblingDistillation, "_load_batches", lambda self, pool: [part.flip(0) for part in views(self, pool)])


def wrong_kernel(patch):
    forward = UpConv2d.forward
    patch.setattr(UpConv2d, "forward", lambda self, h: forward(self, h).roll(1, 3))  # BatchNorm would undo a factor


@pytest.mark.parametrize(
    ("case", "spoil"),
    [
        ("cnn_synthesis", wrong_contrast),
        ("student", wrong_rate),
        ("views", wrong_answers),
        ("teacher", wrong_shift),
        ("generator", wrong_kernel),
        pytest.param("replicas", wrong_batches, marks=pytest.mark.exhaustive),
        pytest.param("teacher", wrong_rate, marks=pytest.mark.exhaustive),
        pytest.param("bn_prior", wrong_norm, marks=pytest.mark.exhaustive),
        pytest.param("dfq", wrong_norm, marks=pytest.mark.exhaustive),
        pytest.param("atesc", wrong_attack, marks=pytest.mark.exhaustive),
    ],
)
def test_a_wrong_fast_path_is_found(case, spoil, program, bench, monkeypatch):
    spoil(monkeypatch)
    assert not all(row.correct for row in program.measure(bench, [case]))


def rows_of(error: float) -> list[measure.Row]:
    goal = measure.Goal("at least", 0.9)
    return [measure.Row("a thing", "bare", goal, [0.5, 0.7, 0.6], [measure.Check("weights", error, 1e-3)])]


@pytest.mark.parametrize(("error", "code"), [(1e-4, 0), (0.1, 1), (math.nan, 1)])
def test_the_table_says_what_is_missed_and_a_wrong_path_fails(error, code, program, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "measure", lambda bench, names: rows_of(error))
    monkeypatch.setattr(program, "make_runtime", lambda *options: make_runtime("cpu", "float32"))
    monkeypatch.setattr(sys, "argv", ["bench.py", "--out", str(tmp_path / "o"), "--only", "student"])
    if code:
        with pytest.raises(SystemExit, match="a thing"):
            program.main()
    else:
        program.main()
    written = (tmp_path / "o" / "bench.md").read_text()
    assert written in capsys.readouterr().out
    assert "| a thing | bare | 0.60 | 0.50 to 0.70 (3) | ≥ 0.9 | **no** |" in written
    assert ("**WRONG** weights" in written) == bool(code) and "bench.py --out" in written and "float32" in written
    row = json.loads((tmp_path / "o" / "bench.json").read_text())["rows"][0]
    assert (row["median"], row["met"], row["correct"]) == (0.6, False, not code)


@pytest.mark.parametrize(
    ("kind", "value", "met"),
    [("at least", 0.9, True), ("at least", 0.89, False), ("at most", 0.9, True), ("at most", 0.91, False)],
)
def test_a_goal_is_met_at_its_value(kind, value, met):
    assert measure.Goal(kind, 0.9).met(value) == met
    assert not measure.Goal(kind, 0.9).met(math.nan)


def test_tensors_of_other_shapes_or_with_nan_never_agree():
    one = torch.ones(3)
    assert measure.compare("same", [one, one], [one, one], 0.0).passed
    assert not measure.compare("less", [one], [one, one], 1.0).passed
    assert not measure.compare("nan", [one * math.nan], [one], 1.0).passed


def test_repeats_take_turns(bench):
    bench.repeats, order = 3, []
    taken = bench.seconds(a=lambda: order.append("a"), b=lambda: order.append("b"))
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(values) for name, values in taken.items()} == {"a": 3, "b": 3}


def test_a_command_is_timed_and_may_end_as_it_should():
    seconds = commands.run(["-c", "import sys, time; time.sleep(0.3); sys.exit(42)"], expected=42)
    assert 0.3 <= seconds < 10


def test_a_command_that_fails_is_no_measurement():
    with pytest.raises(commands.CommandFailed, match="no such thing"):
        commands.run(["-c", "import sys; sys.exit('no such thing')"])
