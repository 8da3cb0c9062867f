"""Several ranks: the same images to the bit, the same steps up to rounding, one voice, one end."""

import contextlib
import functools
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import ENDLESS, left_over, numbers, outcome, wait_for
from ranks import cell as on_this_rank
from ranks import on_ranks
from runner import CAKE, TINY, Outcome, composed, make_cell, process_environment, read_json, status, write_component
from safetensors.torch import load_file
from torch import nn

from dfkd import main
from dfkd.config.cell import Cell
from dfkd.defenses import Defense
from dfkd.domains import Images
from dfkd.errors import ConfigError
from dfkd.machine import distributed, interrupt
from dfkd.machine.data_parallel import has_dropout, on_whole_batches
from dfkd.models import cnn_bn, mlp
from dfkd.pool import Pool
from dfkd.recipe import Recipe
from dfkd.run.run_cell import run_cell
from dfkd.scenarios import none
from dfkd.stages.prepare import prepare
from dfkd.stages.stage import Run
from dfkd.store.files import is_alive
from dfkd.store.store import Store
from dfkd.teachers import Supervised
from dfkd.teachers.base import Batches
from dfkd.tracker import read_rows

# Networks without BatchNorm, which several ranks share on a CPU, too.
MOONS = (
    *("experiment=cake/two_moons", "debug=smoke", "runtime.device=cpu", "runtime.precision=float32"),
    *("runtime.threads=1", "limit={epochs:2,steps:3,rounds:5}", "runtime.chunk=100", "evaluate.premise.images=20"),
    *("ntl_scenario.id.train=600", "ntl_scenario.id.val=100", "ntl_scenario.id.test=100"),
)
MADE = ("teacher", "judgement", "pool", "split", "student")  # of a cell without a defense that attacks


def tiny(outputs: Path, *overrides: str) -> list[str]:
    """Arguments of the smallest CAKE cell, in rounds of which two ranks have an odd number."""
    return [
        *CAKE,
        *TINY,
        "synthesizer.rounds=3",
        "limit.rounds=3",
        "runtime.chunk=20",
        *overrides,
        f"outputs={outputs}",
    ]


def moons(outputs: Path, *overrides: str) -> list[str]:
    return [*MOONS, *overrides, f"outputs={outputs}"]


def cell_of(arguments: list[str]) -> Cell:
    return Cell(composed(*arguments))


def plain(arguments: list[str]) -> Cell:
    """Run a cell in this process alone."""
    cell = cell_of(arguments)
    run_cell(cell)
    return cell


def two(arguments: list[str], strike: tuple[int, int] | None = None, blind: int | None = None) -> list[Outcome]:
    """What `dfkd ARGUMENTS` does on each of two ranks (see `ranks.cell`)."""
    return on_ranks(2, functools.partial(on_this_rank, strike=strike, blind=blind), *arguments)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Cell:
    """A cell that torchrun has run."""
    folder = tmp_path_factory.mktemp("shared")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "dfkd"]
    done = subprocess.run(
        [*launcher, *moons(folder / "out")],
        cwd=folder,
        env=process_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("student (teacher), in percent") == 1 and "by one rank" not in done.stderr
    return cell_of(moons(folder / "out"))


@pytest.mark.exhaustive
def test_ranks_save_and_end_with_a_torchrun_that_is_killed(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "dfkd"]
    arguments = moons(tmp_path / "out", "synthesizer.batch_size=20", *ENDLESS)
    torchrun = subprocess.Popen([*launcher, *arguments], cwd=tmp_path, env=process_environment())
    found = []
    try:
        wait_for(lambda: list((tmp_path / "out" / "store" / "pool").glob(".*.checkpoint")), seconds=90)
        found = subprocess.check_output(["pgrep", "-P", str(torchrun.pid)], text=True).split()  # each has its own group
        assert len(found) == 2 and all(is_alive(int(process)) for process in found)
        torchrun.kill()
        torchrun.wait()
        wait_for(lambda: not any(is_alive(int(process)) for process in found), seconds=interrupt.SAVE_TIMEOUT + 10)
    finally:
        torchrun.kill()
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
    assert read_json(cell_of(arguments).folder / "status.json")["status"] == "interrupted"


@pytest.fixture
def ranks(monkeypatch):
    """Let this process believe to be the first of so many ranks."""

    def pretend(count: int) -> None:
        for name, value in {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": count, "RANK": 0, "LOCAL_RANK": 0}.items():
            monkeypatch.setenv(name, str(value))

    return pretend


def artifact(cell: Cell, stage: str) -> Path:
    (folder,) = (path.parent for path in (cell.outputs / "store" / stage).glob("*/meta.json"))
    return folder


@pytest.mark.cpu("each rank needs a GPU of its own")
@pytest.mark.parametrize(
    "method",
    [
        ("synthesizer.snapshots=2",),
        pytest.param(("noise=langevin",), marks=pytest.mark.exhaustive),
        pytest.param(
            ("synthesizer=deepinversion", "synthesizer.batch_size=20", "prior=none"), marks=pytest.mark.exhaustive
        ),
    ],
)
def test_two_ranks_make_the_pool_of_one_to_the_bit(tmp_path, method):
    arguments = tiny(tmp_path, *method)
    cell = plain(arguments)
    alone, pool = numbers(read_json(cell.folder / "result.json")), artifact(cell, "pool")
    files = {file.name: file.read_bytes() for file in pool.iterdir() if file.name != "meta.json"}
    meta = read_json(pool / "meta.json")["meta"]
    for folder in (cell.folder, *(tmp_path / "store" / stage for stage in ("pool", "split", "student"))):
        shutil.rmtree(folder)
    first, second = two(arguments)
    assert (first.code, second.code, second.out, second.err) == (0, 0, "", ""), first.err
    assert {file.name: file.read_bytes() for file in pool.iterdir() if file.name != "meta.json"} == files
    again = read_json(pool / "meta.json")["meta"]
    assert (again.pop("ranks"), again["evals"], again["labels"]) == (2, meta["evals"], meta["labels"])
    result = read_json(cell.folder / "result.json")
    assert [stage for stage in MADE if result["stages"][stage]["reused"]] == ["teacher", "judgement"]
    assert numbers(result) | {"ranks": 1, "command": None} == alone


def weights(cell: Cell, stage: str) -> dict[str, torch.Tensor]:
    return load_file(artifact(cell, stage) / f"{stage}.safetensors")


@pytest.mark.exhaustive
def test_torchrun_makes_what_one_rank_makes_up_to_rounding(tmp_path, shared):
    alone = plain(moons(tmp_path))
    a, b = (read_json(cell.folder / "result.json") for cell in (alone, shared))
    assert (a["ranks"], b["ranks"]) == (1, 2)
    for name in ("hash", "teacher", "teacher_evals", "validation"):
        assert a[name] == b[name]
    assert {name: stage["key"] for name, stage in a["stages"].items()} == {n: s["key"] for n, s in b["stages"].items()}
    for stage in ("teacher", "student"):
        torch.testing.assert_close(weights(alone, stage), weights(shared, stage), rtol=1e-4, atol=1e-5)
    rows = [read_rows(cell.folder / "metrics.jsonl") for cell in (alone, shared)]
    assert [list(row) for row in rows[0]] == [list(row) for row in rows[1]]
    for one, other in zip(*rows, strict=True):
        assert {k: v for k, v in one.items() if k != "stage"} == pytest.approx(
            {k: v for k, v in other.items() if k != "stage"}, rel=1e-3
        )


def test_a_plain_run_finds_what_ranks_have_made(tmp_path, shared):
    made = [s for s in MADE if "ranks" in read_json(artifact(shared, s) / "meta.json")["meta"]]
    assert made == ["teacher", "pool", "student"]
    shutil.copytree(shared.outputs, tmp_path / "out")
    cell = cell_of(moons(tmp_path / "out"))
    assert cell.finished_result() == read_json(cell.folder / "result.json")
    shutil.rmtree(cell.folder)
    plain(moons(tmp_path / "out"))
    assert all(stage["reused"] for stage in read_json(cell.folder / "result.json")["stages"].values())


def gradients(augment: str, features: bool, together: bool) -> dict[str, np.ndarray]:
    """Of a student's loss on the batch of a step (or this rank's share of it)."""
    from dfkd.distill import KL, Hint, Student, Trainer
    from dfkd.machine.runtime import Runtime
    from dfkd.models import Classifier, Teacher
    from dfkd.recipe import Recipe

    torch.manual_seed(0)
    torch.set_num_threads(1)
    net, other = (mlp((1, 8, 8), 3, hidden=hidden, layers=2) for hidden in (8, 6))
    distributed.start()
    with distributed.together(together):
        model, teacher = Classifier(net, (1, 8, 8), 3, [0.5], [0.5]), Teacher(other, (1, 8, 8), 3, [0.5], [0.5])
        pool = Pool()
        images = torch.rand(32, 1, 8, 8)
        pool.add(images, teacher.predict(images), Defense().split(teacher, images, images, torch.Generator()))
        loss = Hint(KL()) if features else KL()
        student = Student(net, Recipe(batch_size=16), loss, epochs=1, augment=augment)
        trainer = Trainer(model, student, Defense(), Runtime(torch.device("cpu")), 0, 2, teacher)
        trainer.train(pool, 1)
        trainer.read()
        found = {name: p.grad for name, p in trainer.objective.named_parameters()} | dict(model.net.state_dict())
        found["evals"] = torch.tensor(teacher.evals["distill"])
    distributed.stop()
    return {name: value.numpy() for name, value in found.items()}  # tensors would be gone with the process


@pytest.mark.parametrize(
    ("augment", "features"), [("none", False), ("crop_flip", False), ("cut_mix", False), ("none", True)]
)
def test_a_step_has_the_gradient_of_the_whole_batch(augment, features):
    whole = gradients(augment, features, False)
    assert any(value.any() for value in whole.values())
    for shared in on_ranks(2, gradients, augment, features, True):
        assert shared.keys() == whole.keys()
        for name, value in shared.items():
            np.testing.assert_allclose(value, whole[name], rtol=1e-4, atol=1e-6)


FAILING = """
import os
from dfkd.synthesizers import NoiseImages

class Failing(NoiseImages):
    def synthesize(self, rounds, *others):
        if os.environ.get("RANK") == "1" and rounds.start == 3:
            raise RuntimeError("lightning struck")
        return super().synthesize(rounds, *others)
"""


@pytest.mark.cpu("each rank needs a GPU of its own")
def test_an_error_on_one_rank_ends_all_and_is_told_once(tmp_path, monkeypatch):
    options = "name: failing\n_target_: failing.Failing\nrounds: 6\nbatch_size: 16"
    write_component(tmp_path, "failing", FAILING, synthesizer__failing=options)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = [f"hydra.searchpath=[file://{tmp_path}/options]", "synthesizer=failing", "student=offline"]
    arguments = [*own, *TINY[:-2], "limit.rounds=6", f"outputs={tmp_path / 'out'}"]
    first, second = two(arguments)
    assert (first.code, second.code) == (1, 1)
    assert "lightning" not in first.err and second.err.count("RuntimeError: lightning struck") == 1
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    said = read_json(folder / "status.json")
    assert said["status"] == "failed" and said["error"] == "FailedElsewhere: rank 1: RuntimeError: lightning struck"
    assert "in synthesize" in said["traceback"]


def test_a_bad_value_is_told_once_before_any_work(tmp_path):
    outcomes = two(tiny(tmp_path / "out", "student.recipe.batch_size=15"))
    assert [found.code for found in outcomes] == [1, 1]
    said = "".join(found.err for found in outcomes)
    assert said.count("student.recipe.batch_size=15 cannot be shared evenly by 2 ranks; set it to a multiple of 2") == 1
    assert not list((tmp_path / "out").glob("*"))


def struck(outputs: Path, strike: tuple[int, int]) -> Outcome:
    """What the first of two ranks says that have been stopped."""
    first, second = two(moons(outputs, "runtime.checkpoint_every=3600"), strike)
    assert (first.code, second.code) == (1, 1) and second.err == ""
    assert main.INTERRUPTED in first.err and status(cell_of(moons(outputs)).folder) == "interrupted"
    return first


def resumed(said: str) -> list[str]:
    return [" ".join(line.split()[:1] + line.split()[3:]) for line in said.splitlines() if "resumed at" in line]


def test_a_signal_to_one_rank_stops_all_at_the_same_step_and_two_ranks_go_on_there(tmp_path, shared):
    struck(tmp_path, (1, 3))
    second = struck(tmp_path, (0, 9))  # seven steps are left of the teacher
    third = struck(tmp_path, (1, 4))  # a wave of sets of the pool
    last, _ = two(moons(tmp_path))
    assert last.code == 0
    found = [resumed(outcome.err) for outcome in (second, third, last)]
    assert found == [["teacher at epoch 0 of 2"], ["pool at round 4 of 5"], ["student at round 0 of 2"]]
    cell = cell_of(moons(tmp_path))
    a, b = outcome(cell), outcome(shared)
    assert a.keys() == b.keys() and not left_over(cell.outputs)
    assert [name for name in a if a[name] != b[name] and name.endswith(".safetensors")] == []
    results = [numbers(read_json(c.folder / "result.json")) | {"command": None} for c in (cell, shared)]
    assert results[0] == results[1]


@pytest.mark.exhaustive
def test_a_checkpoint_is_for_the_number_of_ranks_that_saved_it_and_for_all_of_them(tmp_path, caplog):
    struck(tmp_path / "one", (0, 3))
    shutil.copytree(tmp_path / "one", tmp_path / "blind")
    with caplog.at_level(logging.INFO, "dfkd"):
        plain(moons(tmp_path / "one"))
    assert "begins anew: its checkpoint is of another number of ranks" in caplog.text
    first, second = two(moons(tmp_path / "blind"), blind=1)
    assert (first.code, second.code) == (0, 0)
    assert "a checkpoint does not fit and is dropped" in first.err and not resumed(first.err)


def test_a_sweep_is_refused_by_all_and_told_once(tmp_path):
    found = two(["-m", "seed=0,1", *moons(tmp_path / "out")])
    assert [outcome.code for outcome in found] == [1, 1] and not (tmp_path / "out").exists()
    said = "".join(outcome.err for outcome in found)
    assert said.count("dfkd: torchrun gives all of its 2 processes to one cell, and this is a sweep") == 1


def answers(asked_at: int) -> int:
    """After how many calls the sign says stop."""
    distributed.start()
    sign = distributed.StopSign()
    for number in range(100_000):
        interrupt.asked = distributed.rank() == 1 and number >= asked_at
        if sign():
            break
    distributed.stop()
    return number


def test_all_ranks_see_a_signal_in_the_same_call_and_seldom_look():
    first, second = on_ranks(2, answers, 500)
    assert 500 < first == second < 99_999


def dies() -> str:
    distributed.start()
    if distributed.rank() == 1:
        os._exit(1)
    with pytest.raises(distributed.RankLost) as lost:
        distributed.barrier()
    return str(lost.value)


def test_a_rank_that_is_killed_is_noticed():
    first, second = on_ranks(2, dies)
    assert first.startswith("another rank ended without a word") and second is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["synthesizer=dfq"], "synthesizer=dfq trains the student while it makes images, which 2 ranks cannot share"),
        ([*CAKE, "teacher.recipe.batch_size=9"], "teacher.recipe.batch_size=9 cannot be shared evenly by 2 ranks"),
    ],
)
def test_what_ranks_cannot_do_together_is_told_before_any_work(tmp_path, ranks, overrides, said):
    prepare(make_cell(tmp_path, *overrides))
    ranks(2)
    with pytest.raises(ConfigError, match=said):
        prepare(make_cell(tmp_path, *overrides))
    if overrides[0] == "synthesizer=dfq":
        prepare(make_cell(tmp_path, *overrides, "until=premise"))


NO_BN = ("domain@ntl_scenario.id=two_moons", "synthesizer=cake_2d", "network@teacher.network=mlp")


@pytest.mark.parametrize(
    ("overrides", "alone"),
    [
        ((), {"teacher": None, "pool": None, "student": None}),
        (("defense=atesc",), {"student": None}),
        (("defense=atesc", "defense.forget=kl"), {"student": "the defense's loss looks at a batch as a whole"}),
        (("defense=atesc", "defense.reduction=group"), {"student": "the defense's loss looks at a batch as a whole"}),
        (("synthesizer=noise_images", "synthesizer.rounds=1", "student=offline"), {"pool": ""}),
        pytest.param(
            ("domain@ntl_scenario.id=digits", *(f"network@{n}.network=cnn_bn" for n in ("teacher", "student"))),
            dict.fromkeys(("teacher", "student"), "BatchNorm over all ranks needs CUDA"),
            marks=pytest.mark.cpu("what a GPU does"),
        ),
        (("student.recipe.batch_size=100",), {"student": "31 images cannot be shared evenly"}),
        (
            ("synthesizer=cake_generator", "generator@synthesizer.generator=mlp"),
            {"pool": "its rounds depend on each other"},
        ),
    ],
)
def test_stages_that_one_rank_has_to_make_alone(tmp_path, ranks, overrides, alone):
    chosen = [o for o in overrides if o.startswith("synthesizer=")]
    rest = [o for o in overrides if o not in chosen]
    cell = Cell(composed(*NO_BN, *chosen, "network@student.network=mlp", *rest, f"outputs={tmp_path}"))
    components = prepare(cell)
    ranks(2)
    pool = Pool(images=torch.zeros(31 if "student.recipe.batch_size=100" in overrides else 400, 1, 2, 1))
    run = Run(cell, components, Store(tmp_path), stage_outputs={"pool": pool})
    assert {stage.name: stage.single_rank_reason(run) for stage in components.stages if stage.name in alone} == alone


def test_a_teacher_draws_whole_batches_and_takes_its_share(ranks, monkeypatch, tiny_domain, runtime):
    kind = Supervised(cnn_bn((1, 8, 8), 3, widths=(4, 4, 4)), Recipe(batch_size=8), epochs=1, augment="crop_flip")

    def batch() -> Images:
        batches = Batches(kind, none(tiny_domain()), runtime, seed=0)
        batches.shuffle()
        return [batches.take(number)[0] for number in range(2)][1]

    whole, shares = batch(), []
    ranks(2)
    for number in range(2):
        monkeypatch.setenv("RANK", str(number))
        with distributed.together():
            shares.append(batch())
    assert [len(share) for share in shares] == [4, 4]
    assert torch.equal(torch.cat([share.x for share in shares]), whole.x)
    assert torch.equal(torch.cat([share.y for share in shares]), whole.y)


def test_one_rank_alone_shares_nothing():
    assert distributed.rank_slice(7) == slice(0, 7)
    net = cnn_bn((1, 8, 8), 3, widths=(4, 4, 4))
    assert on_whole_batches(net) is net


def test_batch_norm_over_all_ranks_is_another_network_with_the_same_weights(ranks):
    ranks(2)
    net = cnn_bn((1, 8, 8), 3, widths=(4, 4, 4))
    with distributed.together():
        shared = on_whole_batches(net)
        assert on_whole_batches(linear := nn.Linear(1, 1)) is linear
        with pytest.raises(ValueError, match="a batch of 7 images cannot be shared evenly by 2 ranks"):
            distributed.rank_slice(7)
    kinds = [type(module) for module in shared.modules()]
    assert kinds.count(nn.SyncBatchNorm) == 3 and nn.BatchNorm2d not in kinds
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in net.modules())
    shared.load_state_dict(net.state_dict())
    images = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(shared.eval()(images), net.eval()(images))


def test_a_network_that_draws_in_training_is_seen():
    from timm.layers import DropPath  # four seconds that only the process of this test has to take

    for part in (nn.Dropout(0.1), nn.Dropout2d(0.1), DropPath(0.1)):
        assert has_dropout(nn.Sequential(nn.Linear(1, 1), part))
    assert not has_dropout(nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.0), DropPath(0.0)))
