"""A run that is broken off goes on to the same bits: every synthesizer and teacher, and defenses with a memory."""

import dataclasses
import functools
import logging
import tempfile
import typing
from pathlib import Path

import pytest
import torch
from killing import Killed, digest, forget, left_over, outcome, watched
from runner import BACKDOOR, ROOT, TINY, a_few, composed
from safetensors.torch import save_file

from dfkd import synthesizers, teachers
from dfkd.audit import judge
from dfkd.config.cell import Cell
from dfkd.machine.runtime import Runtime
from dfkd.models import cnn_bn
from dfkd.recipe import Recipe
from dfkd.resume.checkpoints import Checkpoints
from dfkd.resume.state import Extractor
from dfkd.scenarios import backdoor, close_set
from dfkd.stages.pipeline import Pipeline
from dfkd.stages.prepare import prepare
from dfkd.synthesizers import Synthesizer
from dfkd.teachers import (
    CUPI,
    CUTI,
    HNTL,
    NTL,
    SOPHON,
    Backdoor,
    CleanTwin,
    Disentanglement,
    Incremental,
    Supervised,
    TrainedTeacher,
)
from dfkd.tracker import Tracker
from dfkd.triggers import Patch

SMALL = ("student.network.widths=[4,4,4]", "student.recipe.batch_size=16", "evaluate.images=20", "data.size=8")
ROUNDS = ("limit.rounds=5", "synthesizer.rounds=5")
SETS = ("synthesizer.batch_size=20",)
INVERSION = (*SETS, "synthesizer.generator.width=8")
GENERATIVE = ("synthesizer.batch_size=16", "synthesizer.images=20", "synthesizer.generator.width=8")
METHODS = {
    "adaptive_deepinversion": SETS,
    "cake": (*SETS, "runtime.chunk=40"),
    "cake_generator": (*GENERATIVE, "limit.training_steps=4", "synthesizer.training_steps=4"),
    "cmi": INVERSION,
    "dafl": GENERATIVE,
    "deepinversion": SETS,
    "dfad": GENERATIVE,
    "dfq": GENERATIVE,
    "fast": (*INVERSION, "synthesizer.reset=2"),
    "mad": GENERATIVE,
    "nayer": (*INVERSION, "synthesizer.renewal=3"),
    "noise_images": SETS,
    "real": ("data.limit=100",),
    "zskt": GENERATIVE,
}
ESCAPE = (
    *("defense=escape", "defense.every=1", "defense.criterion.memory=64", "defense.criterion.most=0.05"),
    *("defense.seek_every=2", "defense.seek_steps=3", "stages.audit.images=2", "stages.audit.steps=2"),
    *("stages.audit.carrier_steps=2", "stages.audit.scouts=4"),
)
DEFENSES = {
    "abd": ("defense=abd", "defense.steps=4", "defense.batch_size=16", "student.capacity=50"),
    "dhbe": ("defense=dhbe", "defense.latent=8", "defense.width=4", "defense.every=3"),
    "atesc_fast": ("defense=atesc_fast", "defense.criterion.memory=32"),
    "atesc_random": ("defense=atesc_random", "student.augment=cut_mix"),
    "escape": (*ESCAPE, "defense.purify_after=0.3", "defense.purify_steps=4"),  # a copy of the teacher is distilled
    "escape_without_a_copy": (*ESCAPE, "defense.purify_after=0"),
    "oracle": ("synthesizer=noise_images", *SETS, "defense=atesc", "criterion@defense.criterion=oracle"),
}


def is_class(thing: object) -> bool:
    """Whether it is a class; to Python 3.10 an alias of a type is one, too."""
    return isinstance(thing, type) and typing.get_origin(thing) is None


def test_every_synthesizer_is_among_them():
    written = {kind for kind in vars(synthesizers).values() if is_class(kind) and issubclass(kind, Synthesizer)}
    files = [ROOT / "conf" / "synthesizer" / f"{name}.yaml" for name in METHODS]
    made = {line.split()[1] for file in files for line in file.read_text().splitlines() if line.startswith("_target_")}
    assert made == {f"dfkd.synthesizers.{kind.__name__}" for kind in written - {Synthesizer}}


class Silent(Tracker):
    """Metrics are in the store, too."""

    def log(self, row: dict) -> None:
        pass


def small_cell(outputs, *overrides: str) -> Cell:
    first = [o for o in overrides if o.startswith("synthesizer=")]
    tiny = [o for o in TINY if not o.startswith("synthesizer.")]
    rest = [o for o in overrides if o not in first]
    return Cell(composed(*first, *tiny, *rest, *SMALL, "runtime.checkpoint_every=0", f"outputs={outputs}"))


def through(cell) -> dict[str, dict]:
    """All stages of a cell; returns what their meta.json say that is no time."""
    pipeline = Pipeline(cell, prepare(cell), Silent())
    pipeline.make()
    times = ("seconds", "seconds_by_phase", "peak_memory_mb")
    return {n: {k: v for k, v in a.meta.items() if k not in times} for n, a in pipeline.artifacts.items()}


def breaks_do_not_show(cell, caplog) -> None:
    """Run undisturbed, and again broken off twice: all has to be the same, after every step and at the end."""
    with watched() as steps:
        metas = through(cell)
    steps = [step for step in steps if not step[0].startswith("teacher")]
    files = outcome(cell)
    forget(cell, "pool", "split", "student")
    first, second = max(1, len(steps) // 3), len(steps) - len(steps) // 4
    with watched(first) as begun, pytest.raises(Killed):
        through(cell)
    with watched(second - first) as more, pytest.raises(Killed):
        through(cell)
    assert left_over(cell.outputs)
    with watched() as rest:
        again = through(cell)
    assert (begun, more, rest) == (steps[:first], steps[first:second], steps[second:])
    assert again == metas and outcome(cell) == files
    assert not left_over(cell.outputs)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [text for text in warnings if "PREMISE" not in text and "AT CHANCE" not in text]


@pytest.mark.cpu("the same bits are promised on the CPU only")
@pytest.mark.parametrize("name", a_few(METHODS, "cake", "dfq", "fast", "deepinversion", "real"))
def test_every_synthesizer_goes_on_where_it_was(tmp_path, caplog, name):
    rounds = ROUNDS if name != "real" else ()
    breaks_do_not_show(small_cell(tmp_path, f"synthesizer={name}", *METHODS[name], *rounds), caplog)


@pytest.mark.cpu("the same bits are promised on the CPU only")
@pytest.mark.parametrize("name", a_few(DEFENSES, "oracle", "escape", "escape_without_a_copy"))
def test_defenses_with_a_memory_go_on_where_they_were(tmp_path, caplog, name, monkeypatch):
    monkeypatch.setattr("dfkd.defenses.escape.judge", lambda looks: dataclasses.replace(judge(looks), answer="trapped"))
    monkeypatch.setattr("dfkd.defenses.carried.SHARE", 0.0)  # every carrier is found, so that there are some to restore
    options = ("synthesizer=dfq", *GENERATIVE) if name != "oracle" else ()
    breaks_do_not_show(small_cell(tmp_path, *options, *BACKDOOR, *DEFENSES[name], *ROUNDS, "limit.steps=4"), caplog)


@pytest.mark.cpu("the same bits are promised on the CPU only")
def test_snapshots_go_on_where_they_were(tmp_path, caplog):
    options = (*METHODS["cake"], "synthesizer.steps=6", "synthesizer.snapshots=3", "limit.steps=6", "limit.snapshots=3")
    breaks_do_not_show(small_cell(tmp_path, "synthesizer=cake", *options, *ROUNDS), caplog)


def net():
    torch.manual_seed(4)
    return cnn_bn((1, 8, 8), 3, widths=(4, 6))


RECIPE = Recipe(batch_size=8)
LAST = tempfile.TemporaryDirectory()  # the files of a last learner, for `Incremental`; deleted with this process


@functools.cache
def files_of_the_last_learner() -> dict[str, str]:
    """The options of `Incremental`: the weights of a learner of two classes, and images as if made from it."""
    last, memory = Path(LAST.name) / "last.safetensors", Path(LAST.name) / "pool.safetensors"
    save_file(cnn_bn((1, 8, 8), 2, widths=(4, 6)).state_dict(), last)
    save_file({"images": torch.rand(20, 1, 8, 8)}, memory)
    return {"last_path": str(last), "memory_path": str(memory)}


TEACHERS = {
    "supervised": lambda: Supervised(net(), RECIPE, epochs=3, augment="shift"),
    "supervised_fast": lambda: Supervised(net(), RECIPE, epochs=3, augment="alternating_flip", label_smoothing=0.2),
    "backdoor": lambda: Backdoor(net(), RECIPE, epochs=3),
    "clean_twin": lambda: CleanTwin(net(), RECIPE, epochs=3),
    "ntl": lambda: NTL(net(), RECIPE, epochs=3),
    "cuti": lambda: CUTI(net(), RECIPE, epochs=3),
    "cupi": lambda: CUPI(net(), RECIPE, epochs=3, augment="crop_flip"),
    "hntl": lambda: HNTL(net(), RECIPE, 2, disentangle=Disentanglement(RECIPE, 2, latent=4, width=4)),
    "incremental": lambda: Incremental(net(), RECIPE, epochs=3, **files_of_the_last_learner()),
    "sophon": lambda: SOPHON(net(), RECIPE, 2, rounds=4, batches=2, adapt=4, evaluate=4, id_steps=2),
}


def test_every_teacher_is_among_them():
    written = {kind for kind in vars(teachers).values() if is_class(kind) and issubclass(kind, TrainedTeacher)}
    assert {type(make()) for make in TEACHERS.values()} == written - {TrainedTeacher}


@pytest.mark.parametrize("name", a_few(TEACHERS, "supervised_fast", "cupi", "incremental", "sophon"))
def test_every_teacher_goes_on_where_it_was(tmp_path, tiny_domain, caplog, name):
    domain = tiny_domain()
    scenario = backdoor(domain, Patch(), 0) if name == "backdoor" else close_set(domain, tiny_domain(seed=1))

    def trained() -> tuple[str, list[dict]]:
        checkpoints, source = Checkpoints(0), TEACHERS[name]()
        source.loop = checkpoints.loop
        with checkpoints.stage("teacher", "key", tmp_path / "file"):

            def log(epoch: int, metrics: dict) -> None:
                checkpoints.rows.append({"step": epoch} | metrics)

            model = source.train(scenario, Runtime(torch.device("cpu")), 0, log)
            rows = checkpoints.rows
        (tmp_path / "file").unlink()
        return digest(Extractor()(model, "model")), rows

    with watched() as steps:
        undisturbed = trained()
    for kill_at in range(1, len(steps), 3):
        with watched(kill_at) as before, pytest.raises(Killed):
            trained()
        with watched() as after:
            again = trained()
        assert before == steps[:kill_at] and after == steps[kill_at:] and again == undisturbed
    assert "WARNING" not in caplog.text
