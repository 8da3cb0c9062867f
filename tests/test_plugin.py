"""A new method is new files and no edit elsewhere: options made in a temporary folder run like dfkd's own."""

import importlib
import json
import re
import shutil

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from killing import Killed, numbers, watched
from PIL import Image
from runner import CAKE, DFQ, NOISE, ROOT, TINY, command_line, make_cell, process, read_json, write_component

from dfkd.config.cell import Cell
from dfkd.errors import ConfigError
from dfkd.main import CONF
from dfkd.report.cli import cli as report
from dfkd.stages.prepare import prepare
from dfkd.stages.stage import Stage, planned_stages
from dfkd.synthesizers import CMI, NoiseImages

SYNTHESIZER = '''
import torch

from dfkd.synthesizers import Synthesizer, Synthetic


class Stripes(Synthesizer):
    """Striped images: brightness along one random direction."""

    def __init__(self, shape: tuple[int, int, int], classes: int, rounds: int, images: int, width: float = 2.0):
        super().__init__(rounds)
        if width <= 0:
            raise ValueError(f"width must be positive, got {width}")
        self.shape, self.images, self.width = shape, images, width

    def synthesize(self, rounds, teacher, student=None, steer=None):
        phase = torch.rand(self.images, 1, 1, 1, generator=self.stream(rounds.start), device=self.runtime.device)
        ramp = torch.arange(self.shape[2]) / self.width
        return Synthetic((torch.sin(ramp + 6 * phase) / 2 + 0.5).expand(self.images, *self.shape).contiguous())
'''
SYNTHESIZER_YAML = """\
defaults:
  - override /student@_global_.student: offline
  - _self_
name: stripes
_target_: stripes.Stripes
rounds: 500
images: 32
"""
PRIOR = '''
from dfkd.priors import PriorTerm


class Bright(PriorTerm):
    """Images should be bright."""

    def __call__(self, teacher_pass):
        return -teacher_pass.inputs.flatten(1).mean(1).view(teacher_pass.sets, -1).mean(1)
'''
DEFENSE = '''
from dfkd.defenses import Defense
from dfkd.pool import Split


class Confident(Defense):
    """Distil the images on which the teacher is sure."""

    def __init__(self, least: float = 0.5):
        self.least = least

    def split(self, teacher, images, logits, generator):
        score = logits.softmax(1).amax(1)
        return Split(score >= self.least, score)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_component(tmp_path, "stripes", SYNTHESIZER, synthesizer__stripes=SYNTHESIZER_YAML)
    write_component(tmp_path, "bright", PRIOR, prior__bright="bright:\n  _target_: bright.Bright\n  weight: 1.0\n")
    write_component(
        tmp_path, "confident", DEFENSE, defense__confident="name: confident\n_target_: confident.Confident\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run_with_options(folder, *overrides: str) -> dict:
    from dfkd.run.run_cell import run_cell

    with initialize_config_dir(str(CONF), version_base="1.3"):
        search = f"hydra.searchpath=[file://{folder / 'options'}]"
        return run_cell(Cell(compose("config", [*overrides, search, f"outputs={folder / 'o'}"])))


WANDERER = '''
import numpy as np
import torch
from torch import nn

from dfkd.synthesizers import Synthesizer, Synthetic


class Wanderer(Synthesizer):
    """State of every ordinary kind, all of which the images depend on."""

    online = True

    def __init__(self, shape: tuple[int, int, int], rounds: int, images: int, hide: bool = False):
        super().__init__(rounds)
        self.shape, self.images, self.hide = shape, images, hide
        self.walker = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, shape[1] * shape[2]))

    def start(self, runtime, seed):
        super().start(runtime, seed)
        self.optimizer = torch.optim.Adam(self.walker.parameters(), 0.01)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 20)
        self.chance, self.numbers = runtime.generator(seed, "mine"), np.random.default_rng(seed)
        self.memory, self.ema, self.best = [], None, {"loss": float("inf"), "net": None}

    def synthesize(self, rounds, teacher, student=None, steer=None):
        z = torch.randn(self.images, 4, generator=self.chance) + self.numbers.normal()
        x = torch.sigmoid(self.walker(z) + (0 if self.ema is None else self.ema)).view(-1, 1, *self.shape[1:])
        loss = -teacher(x).log_softmax(1).amax(1).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.memory = [*self.memory, x.detach()][-3:]
        mean = x.detach().mean(0).flatten()
        self.ema = mean if self.ema is None else self.ema.lerp_(mean, 0.1)
        if loss < self.best["loss"]:
            self.best = {"loss": loss.item(), "net": self.walker.state_dict()}
        if self.hide:
            self.steps = iter(range(3))
        return Synthetic(torch.stack(self.memory).mean(0), metrics={"loss": loss.detach()})
'''
WANDERER_YAML = "name: wanderer\n_target_: wanderer.Wanderer\nrounds: 8\nimages: 20\n"


@pytest.mark.parametrize("hide", [False, True])
def test_a_method_of_ones_own_goes_on_after_a_kill_or_says_why_it_cannot(tmp_path, monkeypatch, caplog, hide):
    write_component(tmp_path, "wanderer", WANDERER, synthesizer__wanderer=WANDERER_YAML)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    command = (
        "synthesizer=wanderer",
        *(o for o in TINY if "rounds" not in o),
        "limit.rounds=8",
        f"+synthesizer.hide={hide}",
    )
    command = (*command, "runtime.checkpoint_every=0", "student.recipe.batch_size=16")
    undisturbed = run_with_options(tmp_path, *command)
    (folder,) = (tmp_path / "o" / "runs").iterdir()
    student = (folder / "student.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "o" / "store" / "student")
    shutil.rmtree(folder)
    caplog.clear()
    with watched(kill_at=3 * 5), pytest.raises(Killed):
        run_with_options(tmp_path, *command)
    with watched() as steps:
        again = run_with_options(tmp_path, *command)
    assert numbers(again) == numbers(undisturbed) and (folder / "student.safetensors").read_bytes() == student
    assert steps[0][1] == ("round #0", 0 if hide else 5)
    warned = "synthesizer.steps is of the kind range_iterator, of which no state can be taken"
    assert (warned in caplog.text) == hide


SPECTRA = '''
import torch

from dfkd.domains import Domain, Images, Modality

SPECTRA = Modality("spectra", box=None, neighbours=False, figure="projection")


def spectra(bands: int = 8, count: int = 120, limit: int | None = None) -> Domain:
    """Three classes, each bright in another band."""
    generator = torch.Generator().manual_seed(0)

    def part(size: int) -> Images:
        y = torch.arange(size) % 3
        x = 50 + torch.randn(size, bands, 1, 1, generator=generator)
        x[torch.arange(size), y] += 20
        return Images(x, y)

    return Domain("spectra", 3, part(count), part(60), part(60), modality=SPECTRA)
'''
SPECTRA_YAML = "name: spectra\n_target_: spectra.spectra\nbands: 8\n"
MLPS = ("network@teacher.network=mlp", "network@student.network=mlp", "teacher.recipe.batch_size=20", "limit.epochs=20")


@pytest.fixture
def vectors(tmp_path, monkeypatch) -> dict[str, tuple[str, ...]]:
    """How a domain of vectors is chosen: one's own with a modality of its own, and the same in a file."""
    write_component(tmp_path, "spectra", SPECTRA, domain__spectra=SPECTRA_YAML)
    monkeypatch.syspath_prepend(str(tmp_path))
    domain = importlib.import_module("spectra").spectra()
    parts = {"train": domain.train, "test": domain.test}
    arrays = {f"x_{name}": part.x.flatten(1).numpy() for name, part in parts.items()}
    np.savez(tmp_path / "mine.npz", **arrays, **{f"y_{name}": part.y.numpy() for name, part in parts.items()})
    return {
        "spectra": ("domain@ntl_scenario.id=spectra",),
        "embeddings": ("domain@ntl_scenario.id=embeddings", f"ntl_scenario.id.path={tmp_path / 'mine.npz'}"),
    }


@pytest.mark.parametrize(
    ("domain", "chosen"),
    [
        ("spectra", (*CAKE, "synthesizer.groups=2", "prior=none")),
        ("embeddings", (*CAKE, "synthesizer.groups=2", "prior=none")),
        ("embeddings", NOISE),
        ("embeddings", ("synthesizer=real", "student.recipe.batch_size=16")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_domain_of_vectors_of_ones_own_from_teacher_to_figure(tmp_path, vectors, pictures, domain, chosen):
    tiny = [o for o in TINY if chosen[0] != "synthesizer=real" or "rounds" not in o]
    result = run_with_options(tmp_path, chosen[0], *tiny, *chosen[1:], *vectors[domain], *MLPS)
    assert result["teacher"]["iacc"] > 90 and 0 <= result["student"]["iacc"] <= 100
    (folder,) = (tmp_path / "o" / "runs").iterdir()
    assert np.asarray(Image.open(folder / "projection.png").convert("L")).std() > 5
    assert not list(folder.glob("samples_*.png")) and "grid_agreement" not in result["student"]


def test_a_prior_and_a_defense_of_ones_own(folder):
    result = run_with_options(folder, *TINY, *DFQ, "prior=[balance,bright]", "defense=confident")
    assert sorted(result["config"]["prior"]) == ["balance", "bright"]
    assert result["teacher_evals"]["split"] == 0 and 0 <= result["fragile_share"] <= 1
    (metrics,) = (folder / "o" / "runs").glob("*/metrics.jsonl")
    assert '"bright": ' in metrics.read_text()


def test_a_synthesizer_of_ones_own_from_the_command_line(folder):
    command = ("--config-dir", "options", "synthesizer=stripes", *(o for o in TINY if "rounds" not in o), "outputs=o")
    done = process(*command, cwd=folder)
    assert done.returncode == 0, done.stderr
    (file,) = (folder / "o" / "runs").glob("*stripes*/result.json")
    result = read_json(file)
    assert result["teacher_evals"]["distill"] == 2 * 32  # debug=smoke lowers its rounds too
    assert (file.parent / "samples_all.png").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [("+synthesizer.wdith=1", "did you mean 'width'?"), ("+synthesizer.width=-1", "width must be positive, got -1")],
)
def test_mistakes_in_it_are_told_like_in_dfkds_own(folder, override, said):
    with pytest.raises(ValueError, match="synthesizer") as raised:
        run_with_options(folder, "synthesizer=stripes", override)
    assert said.replace("?", "") in str(raised.value)


SHARPER = '''
from dfkd.synthesizers import DFQ


class Sharper(DFQ):
    """Adds an argument to the twelve of its parents."""

    def __init__(self, *args, sharpness: float = 2.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.sharpness = sharpness
'''
SHARPER_YAML = "defaults:\n  - dfq\n  - _self_\nname: sharper\n_target_: sharper.Sharper\nsharpness: 3.0\n"


def test_a_subclass_names_what_it_adds_and_has_the_options_of_its_parents(tmp_path, monkeypatch):
    write_component(tmp_path, "sharper", SHARPER, synthesizer__sharper=SHARPER_YAML)
    monkeypatch.syspath_prepend(str(tmp_path))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = ["synthesizer=sharper", f"hydra.searchpath=[file://{tmp_path / 'options'}]"]
        right = ["synthesizer.images=32", "synthesizer.lr=1/500", f"outputs={tmp_path / 'o'}"]
        made = prepare(Cell(compose("config", [*chosen, *right]))).synthesizer
        assert (made.sharpness, made.images, made.lr, made.weights["one_hot"]) == (3.0, 32, 0.002, 1.0)
        assert made.generator is not None and list(made.prior.terms) == ["bn", "balance"]
        wrong = ["+synthesizer.imagse=3", "synthesizer.rounds=two", "synthesizer.sharpness=high"]
        with pytest.raises(ConfigError) as raised:
            prepare(Cell(compose("config", [*chosen, *wrong])))
    assert sorted(str(raised.value).splitlines()) == [
        "synthesizer.imagse: there is no such option; did you mean 'images'?",
        "synthesizer.rounds must be a whole number, got 'two'",
        "synthesizer.sharpness must be a number, got 'high'",
    ]


def test_a_module_that_is_not_found_is_named_with_where_it_must_lie(folder):
    (folder / "options" / "synthesizer" / "stripes.yaml").write_text(SYNTHESIZER_YAML.replace("stripes.S", "striped.S"))
    with pytest.raises(ValueError, match=r"cannot import 'striped\.Stripes'.*PYTHONPATH"):
        run_with_options(folder, "synthesizer=stripes")


def test_a_method_that_lacks_its_main_part_is_found_before_any_work(folder, tmp_path):
    unfinished = SYNTHESIZER.replace("def synthesize(", "def synthesise(")
    write_component(
        tmp_path, "unfinished", unfinished, synthesizer__unfinished=SYNTHESIZER_YAML.replace("stripes", "unfinished")
    )
    with pytest.raises(ConfigError, match=r"synthesizer: .*abstract method.*synthesize"):
        run_with_options(folder, "synthesizer=unfinished", *(o for o in TINY if "rounds" not in o))
    assert not list((tmp_path / "o").glob("store"))


def example(title: str) -> tuple[str, str]:
    """The code and the option file under a heading of docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text().partition(f"## {title}\n")[2]
    return tuple(re.search(rf"```{kind}\n(.*?)```", text, re.S)[1] for kind in ("python", "yaml"))


def test_the_stage_of_the_docs_is_made_kept_and_told(tmp_path, monkeypatch):
    code, option = example("Add a stage")
    write_component(tmp_path, "my_stage", code, experiment__noise_answers=option)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ("--config-dir", str(tmp_path / "options"), "experiment=noise_answers")
    command = (*own, *TINY, f"outputs={tmp_path / 'o'}")
    done = command_line(*command)
    assert done.code == 0, done.err
    (file,) = tmp_path.glob("o/runs/*/result.json")
    result = read_json(file)
    assert list(result["stages"]) == ["teacher", "judgement", "student", "noise_answers"]
    assert sum(result["noise_answers"]["shares"]) == pytest.approx(1) and result["student"]["iacc"] is not None
    assert "was finished before" in command_line(*command).err
    other = command_line(*command, "stages.noise_answers.images=100")
    assert other.code == 0 and len(list(tmp_path.glob("o/store/noise_answers/*/meta.json"))) == 2
    assert len(list(tmp_path.glob("o/store/student/*/meta.json"))) == 1


def test_the_loss_of_the_docs_trains_a_student(tmp_path, monkeypatch):
    code, option = example("Add a loss")
    write_component(tmp_path, "my_loss", code, loss__angle=option)
    monkeypatch.syspath_prepend(str(tmp_path))
    together = ("student.replicas=2", "runtime.vectorize=true")
    own = ("--config-dir", str(tmp_path / "options"), NOISE[0], "loss@student.loss=angle", *together)
    done = command_line(*own, *TINY, *NOISE[1:], "tracker=files", f"outputs={tmp_path / 'o'}")
    assert done.code == 0 and "2 students to train, side by side" in done.err, done.err
    results = [read_json(file) for file in tmp_path.glob("o/runs/*/result.json")]
    assert [result["config"]["student"]["loss"]["weight"] for result in results] == [10, 10]
    losses = [row["loss/kd"] for row in student_rows(tmp_path)]
    assert losses and all(0 < loss < 20 for loss in losses)  # 10 (1 - cos) of anything


def student_rows(folder) -> list[dict]:
    """What the students of a run noted on their way."""
    files = folder.glob("o/store/student/*/metrics.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


DIRECTIONS = """
import torch.nn.functional as F
from torch import nn

from dfkd.distill import KL, FeatureLoss


class Directions(FeatureLoss):
    def start(self, student: int, teacher: int):
        self.bridge = nn.Sequential(nn.Linear(student, 16), nn.Tanh(), nn.Linear(16, teacher))
        return self.bridge

    def __call__(self, student, teacher):
        return KL()(student, teacher)

    def match(self, student, teacher):
        return 1 - F.cosine_similarity(self.bridge(student), teacher)
"""


def test_a_loss_of_features_of_ones_own_goes_on_after_a_kill(tmp_path, monkeypatch):
    write_component(
        tmp_path, "directions", DIRECTIONS, loss__directions="name: directions\n_target_: directions.Directions\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    command = (*TINY, *DFQ, "loss@student.loss=directions", "network@student.network=cnn_bn_half", "defense=ckd")
    command = (*command, "runtime.checkpoint_every=0", "student.recipe.batch_size=16")
    undisturbed = run_with_options(tmp_path, *command)
    (folder,) = (tmp_path / "o" / "runs").iterdir()
    student = (folder / "student.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "o" / "store" / "student")
    shutil.rmtree(folder)
    with watched(kill_at=4), pytest.raises(Killed):
        run_with_options(tmp_path, *command)
    again = run_with_options(tmp_path, *command)
    assert numbers(again) == numbers(undisturbed) and (folder / "student.safetensors").read_bytes() == student
    asked = again["teacher_evals"]["distill"]  # the pool's images once, and every step's batch
    assert asked == 2 * 32 + 2 * again["config"]["student"]["steps"] * 16


@pytest.fixture
def ece(tmp_path, monkeypatch):
    """Runs a command with the metric of the docs."""
    code, option = example("Add a metric")
    write_component(tmp_path, "my_metric", code, metrics__ece=option)
    monkeypatch.syspath_prepend(str(tmp_path))
    base = ("--config-dir", str(tmp_path / "options"), NOISE[0], *TINY, *NOISE[1:], "tracker=files")

    def run(*overrides: str):
        done = command_line(*base, *overrides, f"outputs={tmp_path / 'o'}")
        assert done.code == 0, done.err
        return done.err

    return run


def test_the_metric_of_the_docs_is_measured_and_shown_everywhere(ece, tmp_path, monkeypatch, capsys):
    drawn = []

    def keep(figure, path, dpi):
        drawn.extend((path.name, axes) for axes in figure.axes)
        path.write_bytes(b"")

    monkeypatch.setattr("dfkd.stages.run_figures.draw", keep)
    told = ece("metrics=ece")
    (file,) = tmp_path.glob("o/runs/*/result.json")
    result = read_json(file)
    parts = [result[name]["ece"] for name in ("student", "student_best_on_validation", "validation", "teacher")]
    assert all(0 < value < 100 for value in parts) and parts[0] != parts[3]
    assert f"calibration error {parts[0]:.1f} ({parts[3]:.1f})" in told
    rounds = [row["val/ece"] for row in student_rows(tmp_path)]
    (curve,) = (
        line
        for name, axes in drawn
        for line in axes.lines
        if name == "curves.png" and line.get_label() == "calibration error (%), lower is better"
    )
    assert curve.get_ydata().tolist() == rounds
    report([str(tmp_path / "o"), "--to", str(tmp_path / "report")])
    table = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    (head,) = (line for line in table if "student ID" in line)
    row = table[table.index(head) + 2]
    assert row[head.index("calibration error")] == f"{parts[0]:.1f}"
    assert row[head.index("teacher calibration error")] == f"{parts[3]:.1f}"
    ece("metrics=ece", "+metrics.ece.each_round=false")
    (once,) = (read_json(new) for new in tmp_path.glob("o/runs/*/result.json") if new != file)
    assert once["student"]["ece"] == parts[0] and "ece" not in once["validation"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert 'title="calibration error (%), lower is better"' in page and f"{parts[0]:.1f}" in page


def test_a_metric_of_ones_own_counts_in_the_keys_of_what_holds_its_values(tmp_path, monkeypatch):
    write_component(tmp_path, "my_metric", example("Add a metric")[0])
    monkeypatch.syspath_prepend(str(tmp_path))

    def keys(options: str = "") -> dict[str, str]:
        compute = "compute: {_target_: my_metric.CalibrationError, bins: 3}"
        own = [f"+metrics={{ece: {{label: mine, {compute}{options}}}}}"] if options is not None else []
        cell = make_cell(tmp_path / "o", *NOISE, *own)
        return {name: stage.key for name, stage in planned_stages(cell, prepare(cell)).items()}

    def other(one: dict[str, str], two: dict[str, str]) -> set[str]:
        return {name for name in one if one[name] != two[name]}

    without, plain = keys(None), keys()
    assert other(without, plain) == {"judgement", "student"}
    assert other(without, keys(", each_round: false")) == {"judgement"}  # a finished student is only measured
    assert other(without, keys(", of_teacher: false")) == {"student"}
    assert other(plain, keys(", of_teacher: false")) == {"judgement"}
    assert other(plain, keys(", lower_is_better: true, form: share")) == set()


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("{iacc: {label: mine, compute: {_target_: my_metric.CalibrationError}}}", "'iacc' cannot be the key"),
        ("{ece: {label: ASR, compute: {_target_: my_metric.CalibrationError}}}", "label 'ASR' is empty, or the head"),
        ("{ece: {label: mine, form: stars, compute: {_target_: my_metric.CalibrationError}}}", "form must be one of"),
        ("{ece: {lable: mine, compute: {_target_: my_metric.CalibrationError}}}", "did you mean 'label'?"),
        ("{ece: {label: mine, compute: {_target_: my_metric.CalibrationEror}}}", "did you mean 'CalibrationError'?"),
        ("{ece: {label: mine}}", "metrics.ece.compute._target_=..."),
        ("{ece: {label: mine, compute: {_target_: dfkd.distill.Student}}}", "metrics.ece.compute.network is missing"),
        ("{ece: {label: mine, compute: {_target_: dfkd.recipe.Recipe}}}", "a Recipe computes nothing"),
        ("{ece: 3}", "metrics.ece must say a label"),
    ],
)
def test_mistakes_in_a_metric_are_told_before_any_work(tmp_path, monkeypatch, own, said):
    write_component(tmp_path, "my_metric", example("Add a metric")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError) as raised:
        prepare(make_cell(tmp_path / "o", *DFQ, f"+metrics={own}"))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "base, old, new",
    [
        (NoiseImages, "at_once", "rounds_per_call"),
        (CMI, "keep", "to_pool_format"),
        (CMI, "augment", "view"),
        (Stage, "why_alone", "single_rank_reason"),
    ],
)
def test_a_class_of_ones_own_is_told_what_is_called_otherwise_now(base, old, new):
    with pytest.raises(ConfigError, match=f"Mine.{old} is now called {new}: rename it"):
        type("Mine", (base,), {old: None})
