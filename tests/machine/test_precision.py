"""runtime.precision: float32 is IEEE float32; auto is measured once, kept, and touches nothing of the cell."""

import json
from dataclasses import replace

import pytest
import torch
from runner import make_cell, read_json

from dfkd.run.run_cell import run_cell
from dfkd.stages import precision
from dfkd.stages.precision import choose_precision
from dfkd.stages.prepare import prepare

NOISE = ("synthesizer=noise_images", "runtime.precision=auto")


@pytest.fixture
def cell(tmp_path):
    made = make_cell(tmp_path, *NOISE)
    made.outputs.mkdir(parents=True, exist_ok=True)
    return made


@pytest.fixture
def components(cell, monkeypatch):
    """Of a machine that multiplies bfloat16 and has no TF32."""
    monkeypatch.setattr("dfkd.machine.runtime.multiplies_bfloat16", lambda device: True)
    monkeypatch.setattr("dfkd.machine.runtime.has_tf32", lambda device: False)
    return prepare(cell)


@pytest.fixture
def clock(monkeypatch):
    """No time passes: float32 takes 3 s, bfloat16 what the test sets. The turns taken are in `turns`."""

    class Clock:
        bfloat16, turns = 1.0, 0

        def __call__(self, run, device) -> float:
            self.turns += 1
            return 3.0 if self.turns % 2 else self.bfloat16

    made = Clock()
    monkeypatch.setattr(precision, "timed", made)
    return made


@pytest.mark.parametrize(("seconds", "chosen"), [(1.0, "bfloat16"), (2.9, "float32"), (30.0, "float32")])
def test_bfloat16_is_taken_where_it_is_clearly_faster(cell, components, clock, seconds, chosen):
    clock.bfloat16 = seconds
    assert choose_precision(cell, components).precision == chosen


def test_a_machine_chooses_once(cell, components, clock, caplog):
    caplog.set_level("INFO", "dfkd")
    first = choose_precision(cell, components)
    turns = clock.turns
    clock.bfloat16 = 30.0
    assert choose_precision(cell, components) == first and clock.turns == turns
    (line,) = [text for text in caplog.messages if "precision" in text]
    assert line.strip() == "precision bfloat16: bfloat16 is 3.00 times as fast as float32 here"
    (kept,) = read_json(cell.outputs / "precision.json")
    assert kept["seconds"] == {"float32": 3.0, "bfloat16": 1.0} and kept["where"]["torch"] == torch.__version__


def test_a_choice_of_before_there_was_tf32_stays_on_a_cpu_and_is_made_anew_on_a_gpu(
    cell, components, clock, monkeypatch
):
    choose_precision(cell, components)
    turns = clock.turns
    assert choose_precision(cell, components).precision == "bfloat16" and clock.turns == turns
    monkeypatch.setattr("dfkd.machine.runtime.has_tf32", lambda device: True)
    choose_precision(cell, components)
    (kept,) = read_json(cell.outputs / "precision.json")
    assert clock.turns > turns and list(kept["seconds"]) == ["float32", "tf32", "bfloat16"]


@pytest.mark.parametrize("changed", ["network@student.network=mlp", "student.recipe.batch_size=7"])
def test_other_networks_and_batches_are_measured_anew(tmp_path, cell, components, clock, changed):
    choose_precision(cell, components)
    clock.bfloat16 = 30.0
    other = make_cell(tmp_path, *NOISE, changed)
    assert other.outputs == cell.outputs
    there = prepare(other)
    there.runtime = components.runtime
    assert choose_precision(other, there).precision == "float32"
    assert choose_precision(cell, components).precision == "bfloat16"  # and both are kept


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '[{"where": {}}]', '[{"where": 1, "precision": "half"}]', "[3]", "[" * 1000]
)
def test_a_damaged_file_is_measured_again(cell, components, clock, content):
    (cell.outputs / "precision.json").write_text(content)
    assert choose_precision(cell, components).precision == "bfloat16"
    assert len(read_json(cell.outputs / "precision.json")) == 1


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_what_is_asked_for_is_not_measured(tmp_path, clock, asked):
    cell = make_cell(tmp_path, "synthesizer=noise_images", f"runtime.precision={asked}")
    assert choose_precision(cell, prepare(cell)).precision == asked and clock.turns == 0


def test_hardware_without_bfloat16_is_not_measured(cell, components, clock):
    components.runtime = replace(components.runtime, precision="float32")
    assert choose_precision(cell, components) is components.runtime and clock.turns == 0


def test_a_real_measurement_leaves_the_cell_as_it_was(cell, components):
    before = {
        name: {key: value.clone() for key, value in net.state_dict().items()}
        for name, net in (("teacher", components.teacher.network), ("student", components.student.network))
    }
    stream = torch.get_rng_state()
    chosen = choose_precision(cell, components)
    assert torch.equal(torch.get_rng_state(), stream)
    for name, net in (("teacher", components.teacher.network), ("student", components.student.network)):
        assert all(torch.equal(value, before[name][key]) for key, value in net.state_dict().items())
        assert all(p.grad is None and p.requires_grad for p in net.parameters())
    (kept,) = read_json(cell.outputs / "precision.json")
    assert chosen.precision == kept["precision"]
    assert all(0 < seconds < 60 for seconds in kept["seconds"].values())


def test_a_run_computes_in_what_was_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr("dfkd.machine.runtime.multiplies_bfloat16", lambda device: True)
    monkeypatch.setattr(precision, "measure", lambda components, images, precisions: json.loads(CHOICE))
    cell = make_cell(tmp_path, *NOISE)
    assert run_cell(cell)["precision"] == "bfloat16"
    assert [choice["precision"] for choice in read_json(cell.outputs / "precision.json")] == ["bfloat16"]


CHOICE = '{"precision": "bfloat16", "seconds": {"float32": 3.0, "bfloat16": 1.0}}'
