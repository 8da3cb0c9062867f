"""What a run leaves in its folder: numbers, pictures, a student that others can load, and how it ended."""

import importlib.metadata
import json
import logging
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from killing import Killed, numbers, watched
from omegaconf import OmegaConf
from PIL import Image
from runner import BACKDOOR, CAKE, DFQ, NOISE, make_cell, process_environment, read_json, run, status, write_component
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dfkd.config.cell import Cell
from dfkd.domains import digits
from dfkd.errors import DivergedTeacher, NonFiniteLoss
from dfkd.main import explain
from dfkd.models import Classifier, cnn_bn, load_weights
from dfkd.run.run_cell import run_cell
from dfkd.training.meter import Meter

WEIGHTS_AND_NUMBERS = {
    "config.yaml",
    "metrics.jsonl",
    "result.json",
    "status.json",
    "student.safetensors",
    "student.json",
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished cell with all there is: a trap, a split in two groups."""
    teacher = ("limit.epochs=8", "teacher.epochs=8")  # good enough that the attack flips some images, not all
    defense = ("defense=atesc", "defense.criterion.eps=0.15")
    cell = make_cell(tmp_path_factory.mktemp("done"), *DFQ, *BACKDOOR, *teacher, *defense, "seed=1")
    return cell, run_cell(cell)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    cell = make_cell(tmp_path_factory.mktemp("plain"), *NOISE)
    return cell, run_cell(cell)


def is_percent(value: object) -> bool:
    return isinstance(value, float) and 0 <= value <= 100


def test_the_result_has_every_field(done):
    cell, result = done
    assert (result["cell"], result["hash"], result["seed"]) == (cell.name, cell.hash, 1)
    assert result["config"] == cell.config
    known = {"torch", "python"} | {d.name for d in importlib.metadata.distributions(name="dfkd")}
    assert known <= set(result["versions"]) and all(result["versions"].values())
    assert isinstance(result["device"], str) and result["device"] and result["precision"] == "float32"
    assert set(result["teacher"]) == {"iacc", "oacc", "olacc", "asr"}
    assert {"iacc", "oacc", "olacc", "asr", "agreement"} <= set(result["student"])
    for name in ("iacc", "oacc", "asr"):
        assert is_percent(result["teacher"][name]) and is_percent(result["student"][name])
    assert result["teacher"]["olacc"] is None and result["student"]["olacc"] is None  # a backdoor is measured by ASR
    assert is_percent(result["student"]["agreement"])
    assert [row["eps"] for row in result["flip_rates"]] == pytest.approx([*(e / 255 for e in (2, 4, 8, 16)), 0.15])
    assert all(is_percent(row["id"]) and is_percent(row["ood"]) for row in result["flip_rates"])
    assert 0 < result["fragile_share"] < 1
    assert set(result["teacher_evals"]) == {"synthesis", "split", "distill"}
    assert set(result["seconds"]) == {"teacher", "synthesis", "split", "distill", "evaluate", "total"}
    assert all(seconds > 0 for seconds in result["seconds"].values())
    parts = sum(value for name, value in result["seconds"].items() if name != "total")
    assert result["seconds"]["total"] == pytest.approx(parts, abs=0.01)
    assert result["peak_memory_mb"] > 50
    assert read_json(cell.folder / "result.json") == result


def test_last_and_best_on_validation_are_told_apart(done):
    _, result = done
    best = result["student_best_on_validation"]
    assert best["val_iacc"] >= result["validation"]["iacc"] and 0 <= best["round"] < 2
    assert is_percent(best["iacc"]) and is_percent(best["asr"])


def test_teacher_evaluations_are_counted_where_they_are_spent(done, plain):
    evals = done[1]["teacher_evals"]
    assert evals["synthesis"] == 2 * 16 and evals["distill"] == 2 * 32 and evals["split"] >= 2 * (16 + 32)
    # noise: nothing to synthesize with the teacher, nothing to split, one label an image
    assert plain[1]["teacher_evals"] == {"synthesis": 0, "split": 0, "distill": 2 * 32}


def test_cake_spends_an_evaluation_an_image_and_step(tmp_path):
    result = run(tmp_path, *CAKE, "synthesizer.rounds=2", "synthesizer.steps=2")
    assert result["teacher_evals"] == {"synthesis": 2 * 20 * 2, "split": 0, "distill": 2 * 20}
    assert len(result["pool_labels"]) == 10 and sum(result["pool_labels"]) == 40


def test_what_does_not_apply_is_null(plain):
    _, result = plain
    assert [result["student"][name] for name in ("oacc", "olacc", "asr")] == [None] * 3
    assert not {"flip_rates", "premise"} & set(result)  # nothing here attacks
    assert result["fragile_share"] == 1.0


def test_an_open_set_is_measured_by_the_taught_label(tmp_path):
    result = run(tmp_path, *NOISE, "ntl_scenario=open_set", "teacher=ntl")
    for who in ("teacher", "student"):
        assert is_percent(result[who]["olacc"]) and result[who]["asr"] is None and result[who]["oacc"] is None


def test_the_folder_holds_all_there_should_be(done):
    cell, _ = done
    names = {file.name for file in cell.folder.iterdir()}
    assert names >= WEIGHTS_AND_NUMBERS | {"samples_all.png", "samples_fragile.png", "samples_robust.png", "curves.png"}
    assert status(cell.folder) == "done"
    assert not [name for name in names if name.endswith(".tmp")]


def test_the_pictures_open_and_show_something(tmp_path, pictures):
    cell = make_cell(tmp_path, *NOISE, *BACKDOOR, "defense=atesc", "defense.criterion.eps=0.15")
    run_cell(cell)
    files = list(cell.folder.glob("*.png"))
    assert len(files) == 4
    for file in files:
        picture = np.asarray(Image.open(file).convert("L"))
        assert min(picture.shape) > 200 and picture.std() > 5, file.name


def test_the_saved_configuration_makes_the_same_cell(done):
    cell, _ = done
    assert Cell(OmegaConf.create(yaml.safe_load((cell.folder / "config.yaml").read_text()))).name == cell.name


def test_the_metrics_tell_every_round(done):
    cell, result = done
    rows = [json.loads(line) for line in (cell.folder / "metrics.jsonl").read_text().splitlines()]
    student = [row for row in rows if row["stage"] == "student"]
    assert [row["step"] for row in rows if row["stage"] == "teacher"] == list(range(8))
    assert [row["step"] for row in student] == [0, 1]
    for row in student:
        assert all(math.isfinite(value) for key, value in row.items() if key != "stage")
        assert {"loss/kd", "loss/forget", "one_hot", "adversarial", "bn", "balance", "fragile_share"} <= set(row)
        assert 0 <= row["fragile_share"] <= 1
    assert student[-1]["evals/split"] == result["teacher_evals"]["split"]
    assert student[-1]["val/iacc"] == pytest.approx(result["validation"]["iacc"])


READ = """
import json, numpy, torch
about = json.load(open("student.json"))
assert about["input"].startswith("float images (B, C, H, W) in [0, 1]")
exec(about["load"])
with torch.no_grad():
    logits = model(torch.from_numpy(numpy.load("images.npy")))
assert logits.shape[1] == about["classes"] and not model.training
numpy.save("answers.npy", logits.argmax(1).numpy())
"""


def test_a_fresh_process_loads_the_student_by_its_json_and_sees_the_same(plain, tmp_path):
    cell, result = plain
    for name in ("student.json", "student.safetensors"):
        (tmp_path / name).write_bytes((cell.folder / name).read_bytes())
    test = digits().test
    np.save(tmp_path / "images.npy", test.pixels().numpy())
    done = subprocess.run(
        [sys.executable, "-c", READ], cwd=tmp_path, env=process_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    correct = np.load(tmp_path / "answers.npy") == test.y.numpy()
    assert round(100 * correct.mean(), 2) == pytest.approx(result["student"]["iacc"], abs=0.01)


def test_a_2d_cell_has_fields_and_an_agreement_on_the_grid(tmp_path, pictures):
    points = ("domain@ntl_scenario.id=two_moons", "ntl_scenario.id.train=400", "ntl_scenario.id.test=200")
    networks = ("network@teacher.network=mlp", "network@student.network=mlp")
    cell = make_cell(tmp_path, *CAKE, *points, *networks, "synthesizer.groups=2", "prior=none")
    result = run_cell(cell)
    assert is_percent(result["student"]["grid_agreement"])
    assert np.asarray(Image.open(cell.folder / "decision_fields.png").convert("L")).std() > 5


def test_a_loss_that_is_not_finite_fails_the_cell_by_the_terms_name(tmp_path):
    cell = make_cell(tmp_path, *NOISE, "student.recipe.lr=1e30")
    with pytest.raises(NonFiniteLoss, match="'kd'"):
        run_cell(cell)
    status = read_json(cell.folder / "status.json")
    assert status["status"] == "failed" and "'kd'" in status["error"] and "Traceback" in status["traceback"]
    assert not (cell.folder / "result.json").exists() and cell.finished_result() is None


def test_a_teacher_whose_training_diverges_is_named_as_that(tmp_path):
    with pytest.raises(DivergedTeacher, match=r"teacher's training has diverged: loss term 'id'.*teacher\.recipe\.lr"):
        run(tmp_path, *NOISE, "teacher.recipe.lr=1e30", "until=judgement")


def test_a_teacher_that_a_training_left_with_broken_weights_is_not_kept(tmp_path, monkeypatch):
    def train(source, scenario, runtime, seed, log):
        source.network.head.weight.data[0, 0] = torch.nan
        return Classifier(source.network, (1, 16, 16), 10, [0.5], [0.5])

    monkeypatch.setattr("dfkd.models.Classifier._try_images", lambda self: None)
    monkeypatch.setattr("dfkd.teachers.Supervised.train", train)
    with pytest.raises(DivergedTeacher, match=r"head\.weight has 1 NaN .*lower the learning rate"):
        run(tmp_path, *NOISE, "until=judgement")
    assert not list((tmp_path / "store" / "teacher").glob("*/meta.json"))


def test_a_teacher_at_chance_says_so_before_the_student_and_in_the_result(tmp_path, caplog):
    save_file(cnn_bn((1, 16, 16), 10).state_dict(), tmp_path / "untrained.safetensors")
    teacher = ("teacher=checkpoint", f"teacher.path={tmp_path}/untrained.safetensors", "teacher.mean=[0.3]")
    with caplog.at_level("WARNING", "dfkd"):
        result = run(tmp_path / "o", *NOISE, *teacher, "teacher.std=[0.3]", "until=judgement")
    (said,) = result["warnings"]
    assert said.startswith("THE TEACHER IS AT CHANCE ON ID: it is right on") and "teacher.mean, teacher.std" in said
    assert said in caplog.text


NOT_A_NUMBER = """
from dfkd.defenses import Defense
from dfkd.priors import PriorTerm


class Breaks(Defense):
    def __init__(self, after: int):
        self.after, self.seen = after, 0

    def loss(self, student_logits, teacher_logits, divergence, fragile):
        self.seen += 1
        factor = float("nan") if self.seen > self.after else 0.0
        return {"kd": divergence.mean(), "broken": factor * divergence.mean()}


class Term(PriorTerm):
    def __call__(self, teacher_pass):
        return teacher_pass.logits.view(teacher_pass.sets, -1).mean(1) * float("nan")
"""


@pytest.fixture
def broken(tmp_path, monkeypatch):
    write_component(tmp_path, "broken", NOT_A_NUMBER)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_the_last_good_student_is_kept(tmp_path, broken):
    breaks = ("defense._target_=broken.Breaks", "+defense.after=2", "student.steps=1")
    cell = make_cell(tmp_path, *DFQ, "limit.rounds=4", "synthesizer.rounds=4", *breaks)
    with pytest.raises(NonFiniteLoss, match="'broken'"):
        run_cell(cell)
    kept = load_file(cell.folder / "student_last_good.safetensors")
    load_weights(cnn_bn((1, 16, 16), 10), kept, "the last good student")
    assert all(torch.isfinite(value).all() for value in kept.values())
    assert read_json(cell.folder / "status.json")["status"] == "failed"


@pytest.mark.parametrize("method", [DFQ, CAKE], ids=["dfq", "cake"])
def test_a_prior_that_is_not_finite_is_the_one_that_is_named(tmp_path, broken, method):
    cell = make_cell(tmp_path, *method, "+prior.odd={_target_: broken.Term, weight: 1.0}")
    with pytest.raises(NonFiniteLoss, match="'odd'"):
        run_cell(cell)
    assert read_json(cell.folder / "status.json")["status"] == "failed"


def test_an_error_on_the_way_is_kept_with_its_traceback(tmp_path, broken, monkeypatch):
    monkeypatch.setattr("dfkd.run.run_cell.make_result", lambda *_: 1 / 0)
    cell = make_cell(tmp_path, *NOISE)
    with pytest.raises(ZeroDivisionError):
        run_cell(cell)
    status = read_json(cell.folder / "status.json")
    assert status["status"] == "failed" and status["error"].startswith("ZeroDivisionError")
    assert "test_run.py" in status["traceback"]


def test_an_interrupted_cell_says_so(tmp_path, monkeypatch):
    def interrupt(pipeline, _):
        running = read_json(pipeline.run.cell.folder / "status.json")
        assert (running["status"], running["pid"]) == ("running", os.getpid()) and running["host"]
        assert running["started"].startswith(time.strftime("%Y-"))
        raise KeyboardInterrupt

    monkeypatch.setattr("dfkd.run.run_cell.make_result", interrupt)
    cell = make_cell(tmp_path, *NOISE)
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell)
    assert read_json(cell.folder / "status.json")["status"] == "interrupted"


def test_a_full_disk_while_a_stage_is_stored_is_one_error_and_the_same_command_goes_on(tmp_path, monkeypatch):
    """The weights are too large for what is left; a checkpoint on the way was not."""
    cell = make_cell(tmp_path, *NOISE, "runtime.checkpoint_every=0")

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch, pytest.raises(SafetensorError) as raised:
        patch.setattr("dfkd.stages.teacher.save_classifier", full)
        run_cell(cell)
    assert explain(raised.value).startswith("the disk is full; what is finished is kept")
    assert status(cell.folder) == "failed" and not list((tmp_path / "store").rglob("*.tmp"))
    with watched() as steps:
        run_cell(cell)
    assert not [step for step in steps if step[0].startswith("teacher")]  # trained before


@pytest.mark.cpu("the same bits are promised on the CPU only")
def test_a_checkpoint_that_does_not_fit_is_dropped_and_its_stage_begins_anew(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("dfkd.stages.pipeline.code_digest", lambda _: "the same, one would think")
    options = (*DFQ, "runtime.checkpoint_every=0")
    with watched() as steps:
        undisturbed = run_cell(make_cell(tmp_path / "a", *options))
    cell = make_cell(tmp_path / "b", *options)
    with watched(kill_at=len(steps) - 1), pytest.raises(Killed):
        run_cell(cell)
    monkeypatch.setattr("dfkd.distill.loop.Meter", type("OtherMeter", (Meter,), {}))
    assert numbers(run_cell(cell)) == numbers(undisturbed)
    assert "does not fit and is dropped" in caplog.text
    rows = (cell.folder / "metrics.jsonl").read_text()
    assert rows == (make_cell(tmp_path / "a", *options).folder / "metrics.jsonl").read_text()


# An attack this small flips nothing anywhere: no more on ID than on OOD.
FAILS = (*NOISE, *BACKDOOR, "teacher.recipe.lr=1e-6", "attack.eps=1e-6", "evaluate.premise.eps=[1e-6]")


@pytest.mark.parametrize("defense, shouts", [("atesc", True), ("atesc_random", True), ("none", False), ("ckd", True)])
def test_a_premise_that_fails_is_told_loudly_where_the_defense_stands_on_it(tmp_path, caplog, defense, shouts):
    with caplog.at_level(logging.INFO, "dfkd"):
        result = run(tmp_path, *FAILS, f"defense={defense}")
    assert any("THE PREMISE OF ATEsc FAILS" in text for text in result["warnings"]) == shouts
    assert ("THE PREMISE OF ATEsc FAILS at the radius in use" in caplog.text) == shouts
    assert not shouts or result["premise"]["holds"] == [False]
    assert shouts or "premise" not in caplog.text.lower()


def test_a_teacher_is_judged_without_an_attack_in_use_and_nothing_is_shouted(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "dfkd"):
        result = run(tmp_path, *FAILS, "until=premise")
    assert result["premise"]["holds"] == [False] and "FAILS" not in str(result["warnings"])
    assert "ATEsc's premise, that ID images flip more than OOD images, holds at no radius" in caplog.text


def test_the_premise_is_measured_at_the_radius_of_the_defense(tmp_path):
    own = ("defense=atesc", "defense.criterion.eps=3/255", "evaluate.premise.eps=[2/255]")
    result = run(tmp_path, *NOISE, *BACKDOOR, *own)
    assert [row["eps"] for row in result["flip_rates"]] == pytest.approx([2 / 255, 3 / 255])
    assert "the radius in use, eps 3/255" in result["premise"]["words"]


def test_bfloat16_trains_too(tmp_path):
    result = run(tmp_path, *DFQ, "runtime.precision=bfloat16")
    assert result["precision"] == "bfloat16" and is_percent(result["student"]["iacc"])
