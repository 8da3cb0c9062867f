"""`student.replicas=K`: K cells of which the students are trained together, in one run or in a sweep."""

import json

import pytest
import torch
from killing import Killed, left_over, numbers, outcome, watched
from runner import DFQ, NOISE, TINY, command_line, composed, make_cell
from safetensors.torch import load_file

from dfkd.cli.inventory import take_inventory
from dfkd.cli.store import is_unneeded
from dfkd.config.cell import Cell, cells_of
from dfkd.errors import ConfigError
from dfkd.report.runs import read as read_run
from dfkd.run.run_cell import run_cell
from dfkd.stages import student as student_stage
from dfkd.stages.prepare import prepare
from dfkd.store.run_folder import RunFolder

SMALL = (*NOISE, "tracker=files", "evaluate.images=20")
TOGETHER = ("student.replicas=3", "runtime.vectorize=true")


def cells(outputs, *overrides: str) -> list[Cell]:
    chosen = [o for o in (*SMALL, *overrides) if o.startswith("synthesizer=")]
    rest = [o for o in (*SMALL, *overrides) if o not in chosen]
    return cells_of(composed(*chosen, *TINY, *rest, f"outputs={outputs}"))


def students(outputs) -> dict[str, dict]:
    return {file.parent.name: load_file(file) for file in (outputs / "runs").glob("*/student.safetensors")}


def test_siblings_are_cells_whose_student_seeds_follow_each_other(tmp_path):
    found = cells(tmp_path, "seed=4", "student.replicas=3")
    assert [cell.config["seeds"]["student"] for cell in found] == [4, 5, 6]
    alone = [make_cell(tmp_path, *SMALL, "seed=4", f"seeds.student={seed}") for seed in (4, 5, 6)]
    assert [cell.name for cell in found] == [cell.name for cell in alone]
    assert len(cells(tmp_path)) == len(cells(tmp_path, "student.replicas=3", "until=premise")) == 1


@pytest.mark.parametrize("count", [0, -1, 1.5, "two", "true", "null"])
def test_a_number_of_siblings_that_cannot_be_is_named(tmp_path, count):
    with pytest.raises(ConfigError, match=r"student\.replicas must be a whole number of at least 1"):
        cells(tmp_path, f"student.replicas={count}")


@pytest.mark.cpu("a GPU trains them side by side unasked, and teachers that are not equal to the bit")
def test_together_they_are_the_cells_that_they_are_alone(tmp_path, caplog):
    together, alone = tmp_path / "together", tmp_path / "alone"
    caplog.set_level("INFO", "dfkd")
    for outputs, options in ((together, TOGETHER), (alone, TOGETHER[:1])):
        made = cells(outputs, *options)
        for place, cell in enumerate(made):
            run_cell(cell, made[place + 1 :])
    assert "3 students to train, side by side" in caplog.text
    assert "3 students to train, in turn (on a CPU it is no faster)" in caplog.text
    ours, theirs = students(together), students(alone)
    assert len(ours) == 3 and ours.keys() == theirs.keys()
    for name, weights in ours.items():
        for key, value in weights.items():
            assert torch.allclose(value.float(), theirs[name][key].float(), atol=1e-4), (name, key)
        files = [outputs / "runs" / name / "result.json" for outputs in (together, alone)]
        one, other = (json.loads(file.read_text()) for file in files)
        assert one["teacher_evals"] == other["teacher_evals"] and one["validation"] == other["validation"]
        assert one["stages"]["student"]["key"] == other["stages"]["student"]["key"]
        assert one["seconds"].keys() == other["seconds"].keys()
    rows = [
        [json.loads(line) for line in file.read_text().splitlines()]
        for outputs in (together, alone)
        for file in sorted((outputs / "store" / "student").glob("*/metrics.jsonl"))
    ]
    for one, other in zip(rows[:3], rows[3:], strict=True):
        assert [(row["stage"], row["step"], row.keys()) for row in one] == [
            (row["stage"], row["step"], row.keys()) for row in other
        ]


@pytest.mark.cpu("the same bits are promised on the CPU only")
def test_broken_off_they_go_on_to_the_same_bits(tmp_path):
    def go(outputs) -> list[Cell]:
        made = cells(outputs, *TOGETHER, "runtime.checkpoint_every=0", "student.augment=cut_mix", "seed=1")
        for place, cell in enumerate(made):
            run_cell(cell, made[place + 1 :])
        return made

    with watched() as steps:
        calm = go(tmp_path / "calm")
    outputs, kill_at = tmp_path / "broken", len(steps) - 4
    with watched(kill_at) as begun, pytest.raises(Killed):
        go(outputs)
    assert begun == steps[:kill_at] and left_over(outputs)
    with watched() as rest:
        again = go(outputs)
    assert rest == steps[kill_at:]
    for one, other in zip(again, calm, strict=True):
        assert outcome(one) == outcome(other)
        results = [json.loads((cell.folder / "result.json").read_text()) for cell in (one, other)]
        assert numbers(results[0]) == numbers(results[1])
    assert not left_over(outputs)


def test_a_number_of_students_in_one_program_makes_several_programs(tmp_path, caplog):
    caplog.set_level("INFO", "dfkd")
    made = cells(tmp_path, *TOGETHER, "runtime.vectorize=2")
    results = [run_cell(cell, made[place + 1 :]) for place, cell in enumerate(made)]
    assert [result["stages"]["student"]["reused"] for result in results] == [False, True, False]
    said = [line.split("  ")[-1] for line in caplog.messages if "students to train" in line]
    assert said == ["3 students to train, 2 side by side"]


def test_after_a_kill_nobody_calls_the_finished_students_of_the_others_unneeded(tmp_path):
    first, *others = cells(tmp_path, *TOGETHER)
    run_cell(first, others)  # and here its process is killed
    found = take_inventory(tmp_path)
    assert [run.state for run in found.runs].count("finished") == 1
    assert {read_run(cell.folder).status for cell in others} == {"waiting"}
    students = [item for item in found.items.values() if item.stage == "student"]
    assert len(students) == 3 and not any(is_unneeded(found, item, unfinished=False) for item in students)
    with RunFolder(first.folder).lock():  # while the command is still at work, they count as running
        assert [run.state for run in take_inventory(tmp_path).runs].count("running") == 2
    again = [run_cell(cell, others[place + 1 :]) for place, cell in enumerate(others)]
    assert all(result["stages"]["student"]["reused"] for result in again)


def test_a_command_runs_them_all_and_says_each(tmp_path):
    command = (*SMALL[:1], *TINY, *SMALL[1:], *TOGETHER, f"outputs={tmp_path / 'o'}")
    done = command_line(*command)
    assert done.code == 0 and done.err.count("student (teacher), in percent") == 3
    again = command_line(*command)
    assert again.code == 0 and again.err.count("was finished before") == 3


def test_a_sweep_lists_every_one_and_launches_those_that_are_left(tmp_path):
    command = ("-m", *SMALL[:1], *TINY, *SMALL[1:], *TOGETHER, f"outputs={tmp_path / 'o'}")
    done = command_line(*command, "defense=none,ckd")
    assert done.code == 0 and "6 cells: 0 finished before, 6 to run" in done.err and "sweep: 6 of 6 cells" in done.err
    assert done.err.count("side by side") == 2
    assert done.out.count("Some of the n students are of the same teacher and pool") == 1
    more = command_line(*command, "defense=none,ckd", "seeds.student=1", "dry_run=true")
    assert "6 cells: 4 finished, 2 to run; will train 2 students" in more.out
    more = command_line(*command, "defense=none,ckd", "seeds.student=1")
    assert "6 cells: 4 finished before, 2 to run" in more.err and "| 3 |" in more.out.replace("  ", " ")


def test_one_that_fails_is_named_with_the_command_that_repeats_it_alone(tmp_path):
    command = ("-m", *SMALL[:1], *TINY, *SMALL[1:], *TOGETHER, "student.recipe.lr=1e30", f"outputs={tmp_path / 'o'}")
    done = command_line(*command)
    assert done.code == 1 and "the students of 3 cells are trained in turn" in done.err
    assert "3 of 3 cells failed" in done.out
    retries = [line for line in done.out.splitlines() if "retry: dfkd" in line]
    assert [line.split()[-2:] for line in retries] == [[f"seeds.student={s}", "student.replicas=1"] for s in range(3)]


def test_in_turn_one_that_fails_is_not_trained_twice(tmp_path):
    options = ("student.replicas=2", "runtime.vectorize=false", "student.recipe.lr=1e30", f"outputs={tmp_path / 'o'}")
    done = command_line("-m", *SMALL[:1], *TINY, *SMALL[1:], *options)
    assert done.code == 1 and "2 of 2 cells failed" in done.out
    assert "are trained in turn" not in done.err and done.err.count("  student ") == 2


def test_an_online_student_has_no_siblings(tmp_path):
    done = command_line(*TINY, *DFQ, "student.replicas=2", f"outputs={tmp_path / 'o'}")
    (said,) = (line for line in done.err.splitlines() if "share a finished pool" in line)
    assert done.code == 1 and said.startswith("dfkd: ") and said.endswith("dfkd -m seeds.student=0,1")


@pytest.mark.parametrize(
    "override, reason",
    [
        pytest.param(
            *("runtime.vectorize=null", "on a CPU it is no faster"),
            marks=pytest.mark.cpu("it is faster on a GPU"),
        ),
        ("runtime.vectorize=false", "runtime.vectorize=false"),
        ("+student.recipe.clip=1", "gradients are clipped"),
        ("defense=dhbe", "the defense's term"),
        ("network@student.network=vgg11_bn", None),
    ],
)
def test_when_they_are_trained_in_turn(tmp_path, override, reason):
    components = prepare(cells(tmp_path, *TOGETHER, override, "data.size=32")[0])
    found = student_stage.sequential_reason(components)
    assert found is None if reason is None else found.startswith(reason)


def test_dropout_is_trained_in_turn(tmp_path):
    components = prepare(cells(tmp_path, *TOGETHER)[0])
    components.student.network.body.append(torch.nn.Dropout(0.5))
    assert student_stage.sequential_reason(components).startswith("dropout")
