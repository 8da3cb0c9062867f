"""Stages: made once, shared where they may be, the same numbers whatever happened on the way."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from killing import forget, numbers
from runner import BACKDOOR, CAKE, DFQ, NOISE, TINY, make_cell, process_environment, run, status
from safetensors.torch import load_file

from dfkd.models import load_classifier
from dfkd.pool import Pool
from dfkd.run.run_cell import run_cell


def stages(outputs: Path) -> dict[str, int]:
    """How many artifacts of each stage are in the store."""
    store = outputs / "store"
    return {stage.name: len(list(stage.glob("*/meta.json"))) for stage in store.iterdir()}


def reused(result: dict) -> dict[str, bool]:
    return {name: stage["reused"] for name, stage in result["stages"].items()}


def test_a_finished_cell_is_not_run_again(tmp_path):
    first = run(tmp_path, *NOISE)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert run(tmp_path, *NOISE) == first
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_without_its_result_a_cell_is_put_together_from_its_stages(tmp_path):
    cell = make_cell(tmp_path, *CAKE, "defense=atesc")
    first = run_cell(cell)
    metrics = (cell.folder / "metrics.jsonl").read_text()
    (cell.folder / "result.json").unlink()
    again = run_cell(cell)
    assert reused(first) == dict.fromkeys(("teacher", "judgement", "premise", "pool", "split", "student"), False)
    assert reused(again) == dict.fromkeys(reused(first), True)
    assert numbers(again) == numbers(first) and (cell.folder / "metrics.jsonl").read_text() == metrics
    for phase in ("teacher", "synthesis", "split", "distill"):  # a reused stage counts with the time it took
        assert again["seconds"][phase] == first["seconds"][phase]


def test_a_sweep_over_defenses_trains_its_teacher_once(tmp_path):
    results = [run(tmp_path, *DFQ, *BACKDOOR, f"defense={name}") for name in ("none", "atesc", "atesc_random")]
    assert [reused(result)["teacher"] for result in results] == [False, True, True]
    assert stages(tmp_path) == {"teacher": 1, "judgement": 1, "premise": 1, "student": 3}


def test_an_ordinary_teacher_is_shared_by_all_scenarios_of_its_domain(tmp_path):
    run(tmp_path, *NOISE)
    result = run(tmp_path, *NOISE, "ntl_scenario=close_set")
    assert reused(result)["teacher"] and not reused(result)["judgement"]
    assert result["teacher"]["oacc"] is not None


def test_a_cake_pool_is_shared_by_students_and_a_split_by_losses(tmp_path):
    run(tmp_path, *CAKE, "defense=atesc")
    other_student = run(tmp_path, *CAKE, "defense=atesc", "student.network.widths=[8,8,8]")
    other_loss = run(tmp_path, *CAKE, "defense=atesc", "defense.forget=none")
    no_defense = run(tmp_path, *CAKE)
    assert all(reused(other_student)[name] for name in ("teacher", "pool", "split"))
    assert all(reused(other_loss)[name] for name in ("teacher", "pool", "split"))
    assert reused(no_defense)["pool"] and not reused(no_defense)["split"]
    assert stages(tmp_path) == {"teacher": 1, "judgement": 1, "premise": 1, "pool": 1, "split": 2, "student": 4}


def test_snapshots_come_with_the_teachers_answers(tmp_path):
    result = run(tmp_path, *CAKE, "synthesizer.steps=2", "synthesizer.snapshots=2")
    assert result["teacher_evals"] == {"synthesis": 2 * 20 * (2 + 1), "split": 0, "distill": 0}
    (folder,) = (path.parent for path in (tmp_path / "store" / "pool").glob("*/pool.safetensors"))
    pool = Pool.load(folder / "pool.safetensors")
    teacher = load_classifier(next((tmp_path / "store" / "teacher").glob("*/teacher.json")))
    assert len(pool) == 80 and torch.allclose(pool.logits, teacher.predict(pool.images), atol=1e-4)


@pytest.mark.parametrize(
    ("seeds", "shared"),
    [
        (["seeds.student=7"], ["teacher", "judgement", "pool", "split"]),
        (["seeds.synthesis=7"], ["teacher", "judgement"]),
    ],
)
def test_a_seed_of_a_part_leaves_the_other_parts_alone(tmp_path, seeds, shared):
    run(tmp_path, *CAKE)
    result = run(tmp_path, *CAKE, *seeds)
    assert [name for name, again in reused(result).items() if again] == shared


METHODS = {"online": (*DFQ, *BACKDOOR, "defense=atesc"), "offline": (*CAKE, "defense=atesc")}


@pytest.mark.cpu("the same bits are promised on the CPU only")
@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path, method):
    cells = [
        make_cell(tmp_path / name, *METHODS[method], seed)
        for name, seed in (("a", "seed=0"), ("b", "seed=0"), ("c", "seed=1"))
    ]
    torch.rand(3)  # what was drawn before does not matter
    a, b, c = (run_cell(cell) for cell in cells)
    assert numbers(a) == numbers(b) and a["student_digest"] != c["student_digest"]
    assert {name: stage["key"] for name, stage in a["stages"].items()} == {
        name: stage["key"] for name, stage in b["stages"].items()
    }
    metrics = [(cell.folder / "metrics.jsonl").read_text() for cell in cells]
    assert metrics[0] == metrics[1] != metrics[2]
    weights = [load_file(cell.folder / "student.safetensors") for cell in cells]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert any(not torch.equal(value, weights[2][key]) for key, value in weights[0].items())


def test_chunks_and_side_by_side_sets_do_not_change_the_pool(tmp_path):
    pools = []
    for chunk in (20, 1000):
        cell = make_cell(tmp_path, *CAKE, f"runtime.chunk={chunk}")
        forget(cell, "pool", "split", "student")  # the teacher stays: trained again, it is another one on a GPU
        run_cell(cell)
        (file,) = (tmp_path / "store" / "pool").glob("*/pool.safetensors")
        pools.append(load_file(file)["images"])
    torch.testing.assert_close(pools[0], pools[1], rtol=1e-3, atol=1e-3)


@pytest.mark.cpu("the same bits are promised on the CPU only")
def test_a_stage_that_fails_leaves_the_finished_ones_and_the_next_try_gives_the_same_numbers(tmp_path, monkeypatch):
    from dfkd.distill import Distillation

    undisturbed = run(tmp_path / "a", *METHODS["online"])

    synthesize_round = Distillation.synthesize_round

    def fail_in_the_second_round(self, number):
        if number == 1:
            raise RuntimeError("the disk is full, say")
        synthesize_round(self, number)

    cell = make_cell(tmp_path / "b", *METHODS["online"])
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(Distillation, "synthesize_round", fail_in_the_second_round)
        run_cell(cell)
    assert stages(tmp_path / "b") == {"teacher": 1, "judgement": 1, "premise": 1, "student": 0}
    assert not list((tmp_path / "b" / "store").rglob("*.tmp"))
    again = run_cell(cell)
    assert reused(again) == {"teacher": True, "judgement": True, "premise": True, "student": False}
    assert numbers(again) == numbers(undisturbed)


@pytest.mark.exhaustive  # tests/test_survival.py kills a process of ours, without the half minute of a command's start
@pytest.mark.cpu("the same bits are promised on the CPU only")
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path):
    overrides = (*METHODS["online"], "limit.rounds=30", "synthesizer.rounds=30")
    command = [sys.executable, "-m", "dfkd", *TINY, *overrides, f"outputs={tmp_path / 'b'}"]
    killed = subprocess.Popen(command, env=process_environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("b/store/student/.*.tmp/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    cell = make_cell(tmp_path / "b", *overrides)
    assert status(cell.folder) == "killed" and cell.finished_result() is None
    assert stages(tmp_path / "b")["teacher"] == 1 and stages(tmp_path / "b")["student"] == 0
    again, undisturbed = run_cell(cell), run(tmp_path / "a", *overrides)
    assert reused(again) == {"teacher": True, "judgement": True, "premise": True, "student": False}
    assert numbers(again) == numbers(undisturbed)
    assert not list((tmp_path / "b" / "store").rglob("*.tmp"))


@pytest.mark.cpu("the same bits are promised on the CPU only")
@pytest.mark.parametrize("stage", ["teacher", "pool", "student"])
def test_a_damaged_stage_is_named_and_rebuilt_to_the_same_numbers(tmp_path, caplog, stage):
    cell = make_cell(tmp_path, *NOISE)
    first = run_cell(cell)
    (weights,) = (tmp_path / "store" / stage).glob(f"*/{stage}.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (cell.folder / "result.json").unlink()
    with caplog.at_level(logging.INFO, "dfkd"):
        again = run_cell(cell)
    assert str(weights.parent) in caplog.text and "damaged" in caplog.text
    assert [name for name, kept in reused(again).items() if not kept] == [stage]
    assert numbers(again) == numbers(first)


def test_nothing_in_the_store_is_a_pickle(tmp_path):
    run(tmp_path, *CAKE, "defense=atesc")
    files = [file for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert {file.suffix for file in files if not file.name.endswith(".lock")} == {".json", ".jsonl", ".safetensors"}
    assert all(load_file(file) for file in files if file.suffix == ".safetensors")


@pytest.mark.parametrize(("given", "every"), [("2.5", 2.5), ("null", None), ("60", 60)])
def test_the_state_of_a_stage_is_saved_as_often_as_asked_for(tmp_path, given, every):
    from dfkd.stages.pipeline import Pipeline
    from dfkd.stages.prepare import prepare

    cell = make_cell(tmp_path, *METHODS["online"], f"runtime.checkpoint_every={given}")
    components = prepare(cell)
    assert Pipeline(cell, components, components.tracker).run.checkpoints.every == every


def test_the_teacher_is_the_same_after_the_run(tmp_path):
    from dfkd.stages.pipeline import Pipeline
    from dfkd.stages.prepare import prepare
    from dfkd.tracker import Tracker

    cell, tracker = make_cell(tmp_path, *METHODS["online"]), Tracker()
    cell.folder.mkdir(parents=True)
    tracker.start(cell.folder, cell.name, cell.config)
    pipeline = Pipeline(cell, prepare(cell), tracker)
    pipeline.make()
    teacher = pipeline.run.stage_outputs["teacher"]
    tracker.finish(None)
    stored = load_file(pipeline.artifacts["teacher"].path / "teacher.safetensors")
    assert all(torch.equal(value.cpu(), stored[key]) for key, value in teacher.net.state_dict().items())
    assert any(key.endswith("running_mean") for key in stored)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
