"""dry_run=true: the same stages, keys and refusals as the run itself, in words; nothing is done."""

import pytest
from runner import BACKDOOR, CAKE, DFQ, NOISE, TINY, a_few, command_line, make_cell, process, read_json, run

from dfkd.config.memo import Memo
from dfkd.errors import ConfigError
from dfkd.stages.prepare import prepare
from dfkd.stages.stage import planned_stages
from dfkd.store.store import Store
from dfkd.sweeps.dry_run import plan
from dfkd.sweeps.plan import plan_in_words


def made(outputs) -> list[str]:
    """Files below runs/ and store/."""
    return [str(file) for part in ("runs", "store") for file in (outputs / part).rglob("*")]


CELLS = {
    "online": (*DFQ, *BACKDOOR, "defense=atesc"),
    "offline": (*CAKE, "defense=atesc"),
    "oracle": (*CAKE, "ntl_scenario=close_set", "defense=atesc", "criterion@defense.criterion=oracle"),
}


@pytest.mark.parametrize("name", CELLS)
def test_the_graph_has_the_stages_and_keys_of_the_run(tmp_path, name):
    cell = make_cell(tmp_path, *CELLS[name])
    graph = planned_stages(cell, prepare(cell))
    assert made(tmp_path) == []
    result = run(tmp_path, *CELLS[name])
    assert {name: stage.key for name, stage in graph.items()} == {n: s["key"] for n, s in result["stages"].items()}
    assert read_json(cell.folder / "stages.json") == {name: stage.key for name, stage in graph.items()}
    for stage in graph.values():
        meta = read_json(tmp_path / "store" / stage.name / stage.key / "meta.json")
        assert meta["inputs"] == stage.inputs and set(stage.inputs) <= set(graph)


ALIKE = {
    "seeds": ("seed=1", "seeds.student=1"),
    "options": ("student.recipe.lr=0.2", "student.recipe.lr=0.3", "synthesizer.lr=0.01", "prior.bn.weight=3"),
    "components": ("defense=atesc", "defense=ckd", "network@student.network=mlp", "network@teacher.network=wrn_16_1"),
    "data": ("ntl_scenario=close_set", "data.size=16", "ntl_scenario=backdoor"),
}


@pytest.mark.parametrize("kind", a_few(ALIKE, "options", "components"))
def test_a_plan_with_objects_of_other_cells_is_that_of_the_cell_alone(tmp_path, kind):
    memo, plans = Memo(), []
    for word in ("dry_run=true", *ALIKE[kind]):
        cell = make_cell(tmp_path, *DFQ, "dry_run=true", word)
        plans.append(plan(cell, memo))
        assert plans[-1] == plan(cell)
    assert len({str(found) for found in plans}) == len(plans)  # each option counts
    with pytest.raises(ConfigError, match="student: steps must be at least 1, got 0"):
        plan(make_cell(tmp_path, *DFQ, "dry_run=true", "student.steps=0"), memo)


def test_cells_of_a_plan_share_the_networks_and_their_checks(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr("dfkd.stages.checks.check_training_mode", lambda network, shape: tried.append(network))
    sweep = ("defense=none,atesc", "student.recipe.lr=0.1,0.2", "seeds.student=0,1,2", "dry_run=true")
    done = command_line("-m", *TINY, *DFQ, *sweep, f"outputs={tmp_path / 'o'}")
    assert "12 cells: 0 finished, 12 to run; will train 1 teacher, 12 students" in done.out
    assert len(tried) == 2  # the teacher's and the student's


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(tmp_path):
    done = command_line(*TINY, *DFQ, "dry_run=true", "tracker=wandb", f"outputs={tmp_path / 'o'}")
    assert done.code == 0 and made(tmp_path / "o") == []
    assert "make  teacher" in done.out
    assert "1 cell: 0 finished, 1 to run; will train 1 teacher, 1 student and make 1 judgement" in done.out


@pytest.mark.parametrize(
    ("override", "said"),
    [("student.steps=0", "steps must be at least 1, got 0"), ("+teacher.epohcs=3", "did you mean 'epochs'?")],
)
@pytest.mark.parametrize("multirun", [(), ("-m",)])
def test_a_dry_run_refuses_what_a_run_would(tmp_path, override, said, multirun):
    done = command_line(*multirun, *TINY, *DFQ, "dry_run=true", override, f"outputs={tmp_path / 'o'}")
    assert done.code == 1 and said in done.out + done.err and made(tmp_path / "o") == []


def test_a_dry_run_of_a_sweep_ends_with_one_plan_of_all_cells(tmp_path):
    outputs, sweep = tmp_path / "o", (*TINY, *DFQ, *BACKDOOR, f"outputs={tmp_path / 'o'}")
    command_line(*sweep)
    before = made(outputs)
    done = command_line("-m", *sweep, "seed=0,1,2", "student.recipe.momentum=0.9,0.8", "dry_run=true")
    assert done.code == 0 and made(outputs) == before and not list(outputs.glob("sweeps/*.jsonl"))
    assert done.out.splitlines()[-1] == (
        "6 cells: 1 finished, 5 to run; will train 2 teachers, 5 students and make 2 judgements; "
        "reuses 1 teacher, 1 judgement"
    )
    first, second = (i for i, line in enumerate(done.out.splitlines()) if line.startswith(("[0]", "[1]")))
    assert done.out.splitlines()[first].endswith(": finished before")
    assert "reuse teacher" in done.out.splitlines()[second + 1]
    assert "(also for 3)" in done.out and "(also for 2)" in done.out and "|" not in done.out


def test_a_dry_run_beside_each_other_prints_the_plan_once(tmp_path):
    sweep = (*TINY, *NOISE, "hydra/launcher=parallel", "seeds.student=0,1,2", "outputs=o")
    done = process("-m", *sweep, "dry_run=true", cwd=tmp_path)
    assert done.returncode == 0 and made(tmp_path / "o") == []
    totals = "3 cells: 0 finished, 3 to run; will train 1 teacher, 3 students and make 1 judgement, 1 pool, 1 split"
    assert done.stdout.splitlines()[-1] == totals and done.stdout.count("[0] ") == 1
    assert "(also for 1, 2)" in done.stdout


def row(number: int, status: str = "planned", **stages: str) -> dict:
    return {"number": number, "folder": f"o/runs/cell-{number}", "status": status} | (
        {"stages": stages} if stages else {}
    )


def test_a_plan_in_words(tmp_path):
    store = Store(tmp_path)
    store.fetch("teacher", "t0", lambda folder: {})
    rows = [row(i, teacher="t0", pool="p0", student=f"s{i}") for i in range(7)]
    rows += [row(7, "done"), row(8, "failed"), row(9, "waiting")]
    lines = plan_in_words(rows, store).splitlines()
    assert lines[:3] == [
        "[0] cell-0",
        "    reuse teacher t0",
        "    make  pool p0 (also for 1, 2, 3, 4, 5 and 1 more), student s0",
    ]
    assert lines[-4:] == [
        "[7] cell-7: finished before",
        "[8] cell-8: cannot run",
        "[9] cell-9: not looked at",
        "10 cells: 1 finished, 7 to run, 1 that cannot run; will train 7 students and make 1 pool; reuses 1 teacher",
    ]


def test_a_stage_that_was_begun_goes_on(tmp_path):
    store = Store(tmp_path)
    store.fetch("teacher", "t0", lambda folder: {})
    for stage, key in (("teacher", "t0"), ("student", "s0")):
        (tmp_path / stage).mkdir(exist_ok=True)
        (tmp_path / stage / f".{key}.checkpoint.safetensors").touch()
    lines = plan_in_words([row(0, teacher="t0", student="s0")], store).splitlines()
    assert lines[1:3] == ["    reuse teacher t0", "    make  student s0 (goes on)"]


def test_the_plan_of_a_finished_sweep_is_short(tmp_path):
    assert plan_in_words([row(0, "done")], Store(tmp_path)).splitlines()[-1] == "1 cell: 1 finished, 0 to run"
