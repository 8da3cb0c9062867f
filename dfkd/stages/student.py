"""The last stage: the student, distilled from a finished pool, or during the synthesis of the images."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dfkd.config.cell import Cell
from dfkd.distill import Distillation, SiblingDistillation, Student
from dfkd.errors import CannotTrainTogether, NonFiniteLoss
from dfkd.evaluate import Examiner
from dfkd.machine import distributed
from dfkd.machine.data_parallel import has_dropout, single_rank_reason
from dfkd.machine.runtime import seeded
from dfkd.metrics import own_content
from dfkd.models import Classifier, Teacher, load_classifier, save_classifier
from dfkd.pool import Pool
from dfkd.stages.audit import tell_defense
from dfkd.stages.components import Components
from dfkd.stages.pool import synthesis_content
from dfkd.stages.prepare import student_of
from dfkd.stages.stage import Log, Run, Stage, metrics_row, planned_stages
from dfkd.store.digest import file_digest
from dfkd.store.store import Artifact
from dfkd.tracker import read_rows

SAMPLES = {"grid": 64, "field": 500, "projection": 500}  # number of samples in a figure, by `Modality.figure`


class StudentStage(Stage):
    """Trains the student. Gives its state after the last round (`dfkd.models.Classifier`, in evaluation mode).

    The artifact holds the student after the last round, the student that was best on validation images, and samples of
    the synthetic images.

    Siblings (students of the same pool with other seeds, `student.replicas`) are trained with it side by side where
    that is faster. Their artifacts are put into the store, where their own runs find them.
    """

    name, version, phase = "student", 5, "distill"

    def content(self, cell: Cell, components: Components) -> dict:
        checks = {key: cell.config["evaluate"][key] for key in ("checks", "images")}
        content = cell.content("student", "defense", "ntl_scenario", "seeds")
        return content | {"synthesis": synthesis_content(cell)} | checks | own_content(cell.config, "each_round")

    def fed_by(self, cell: Cell, components: Components) -> tuple[str, ...]:
        # The pool's key covers the teacher.
        images = ("teacher",) if components.synthesizer.online else ("pool", "split")
        return (*images, "audit") if components.defense.needs_audit else images

    def make(self, run: Run, folder: Path | None, log: Log) -> dict:
        if run.siblings:
            reason, siblings = sequential_reason(run.components), siblings_beside(run)
            few = f"{1 + len(siblings)} " if len(siblings) < len(run.siblings) else ""
            how = f"in turn ({reason})" if reason else f"{few}side by side"
            run.say(f"{1 + len(run.siblings)} students to train, {how}")
            if reason is None:
                return self._make_together(run, siblings, folder, log)
        seeds = run.cell.config["seeds"]
        with seeded(seeds["student"], "student", "training"):
            distillation = self._distillation(run, run.components.student, seeds, log)
            run.register(teacher=run.stage_outputs["teacher"], model=distillation.model, distillation=distillation)
            with rounds_of(run, distillation.rounds) as (rounds, show):
                distillation.run(show, rounds)
        return {} if folder is None else _save(run, distillation, folder)

    def _make_together(self, run: Run, siblings: Sequence[Cell], folder: Path, log: Log) -> dict:
        """Distil the student and siblings of it side by side, and store the artifacts of the siblings.

        Raises:
            CannotTrainTogether: torch cannot train them side by side, a loss is not finite, or the GPU memory is too
                small.
        """
        cells, components = (run.cell, *siblings), run.components
        students = [components.student, *(student_of(cell, components) for cell in siblings)]
        rows: list[list[dict]] = [[] for _ in cells]

        def note(index: int) -> Log:
            return (
                log if index == 0 else lambda step, metrics: rows[index].append(metrics_row(self.name, step, metrics))
            )

        try:
            with seeded(run.cell.config["seeds"]["student"], "student", "training"):
                distillations = [
                    self._distillation(run, student, cell.config["seeds"], note(index))
                    for index, (student, cell) in enumerate(zip(students, cells, strict=True))
                ]
                together = SiblingDistillation(distillations)
                run.register(teacher=run.stage_outputs["teacher"], models=[one.model for one in distillations])
                run.register(distillations=distillations, together=together, rows=rows)
                with rounds_of(run, distillations[0].rounds) as (rounds, show):
                    together.run(show, rounds)
        except (NonFiniteLoss, torch.OutOfMemoryError) as error:
            raise CannotTrainTogether(str(error).splitlines()[0]) from error
        seconds = round(run.checkpoints.seconds / len(distillations), 3)
        for cell, distillation, own in list(zip(cells, distillations, rows, strict=True))[1:]:
            planned = planned_stages(cell, components)[self.name]

            def build(to: Path, distillation: Distillation = distillation, own: list[dict] = own) -> dict:
                (to / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
                return _save(run, distillation, to) | {"seconds": seconds}

            run.store.fetch(self.name, planned.key, build, planned.content, planned.inputs)
        return _save(run, distillations[0], folder)

    def _distillation(self, run: Run, student: Student, seeds: dict[str, int], log: Log) -> Distillation:
        components, checks, pool = run.components, run.cell.config["evaluate"], run.stage_outputs.get("pool")
        metrics = [metric for metric in components.metrics if metric.each_round]
        if pool is None:
            components.synthesizer.loop = run.loop
        tell_defense(run)
        return Distillation(
            student,
            components.synthesizer,
            components.defense,
            run.stage_outputs["teacher"],
            Examiner(run.stage_outputs["teacher"], components.scenario, components.runtime, checks["images"], metrics),
            components.runtime,
            None if pool is None else pool.select(student.keep),
            seeds,
            checks["checks"],
            log,
            run.loop,
        )

    def single_rank_reason(self, run: Run) -> str | None:
        components, pool = run.components, run.stage_outputs.get("pool")
        if not components.defense.mean_loss:
            return "the defense's loss looks at a batch as a whole"
        if pool is None:  # several ranks never have an online synthesizer: `dfkd.stages.checks` refuses it
            return ""
        images = min(components.student.recipe.batch_size, len(pool.select(components.student.keep)))
        return single_rank_reason(components.student.network, images, components.runtime.device)

    def load(self, run: Run, artifact: Artifact) -> Classifier:
        return self._load(run, artifact, "student")

    def result(self, run: Run, artifact: Artifact) -> dict:
        """Copy the students into the run folder, draw their figures there, and measure the students on the test splits;
        returns the entries for result.json."""
        from dfkd.stages import run_figures  # the import takes half a second and is only needed here

        components, folder, teacher, meta = run.components, run.cell.folder, run.stage_outputs["teacher"], artifact.meta
        for name in ("student", "student_best_on_validation"):
            for suffix in (".safetensors", ".json"):
                shutil.copyfile(artifact.path / f"{name}{suffix}", folder / f"{name}{suffix}")
        examiner = Examiner(teacher, components.scenario, components.runtime, metrics=components.metrics)
        domain = components.scenario.id
        best = examiner(self._load(run, artifact, "student_best_on_validation"), "test")
        best |= {"round": meta["best_on_validation"]["round"], "val_iacc": meta["best_on_validation"]["iacc"]}
        student = self._load(run, artifact, "student")
        measured = examiner(student, "test")
        rows = read_rows(artifact.path / "metrics.jsonl")
        run_figures.training_curves(rows, run.stage_outputs["judgement"], components.metrics, folder / "curves.png")
        figure = domain.modality.figure
        saved = load_file(artifact.path / "samples.safetensors")
        samples = {name: images[-SAMPLES[figure] :] for name, images in saved.items()}
        if figure == "field":
            grid = run_figures.field_grid(domain)
            measured["grid_agreement"] = _same_answers(teacher, student, grid)
            run_figures.decision_fields(teacher, student, domain, samples["all"], folder / "decision_fields.png")
        elif figure == "projection":
            run_figures.projection(teacher, domain, samples["all"], folder / "projection.png")
        else:
            for name, images in samples.items():
                title = f"{name}: {len(images)} synthetic images"
                run_figures.sample_grid(images, title, folder / f"samples_{name}.png")
        return ({} if "pool" in run.stage_outputs else {"pool_labels": None}) | {
            "student": measured,
            "student_best_on_validation": best,
            "validation": meta["validation"],
            "fragile_share": meta["fragile_share"],
            "student_digest": file_digest(folder / "student.safetensors"),
        }

    def _load(self, run: Run, artifact: Artifact, name: str) -> Classifier:
        model = load_classifier(artifact.path / f"{name}.json", net=run.components.student.network)
        return run.components.runtime.to_device(model)


def sequential_reason(components: Components) -> str | None:
    """Return why the students of `student.replicas` are trained one after the other; None if side by side."""
    runtime, student = components.runtime, components.student
    if not (runtime.device.type == "cuda" if runtime.vectorize is None else runtime.vectorize):
        return "runtime.vectorize=false" if runtime.vectorize is False else "on a CPU it is no faster"
    if distributed.ranks() > 1:
        return "the ranks share every one of them"
    if components.defense.makes_views:
        return "the defense makes other views, and as many as it needs, for each"
    if components.defense.has_student_term:
        return "the defense's term of the student's loss draws for one student"
    if has_dropout(student.network):
        return "dropout draws from one stream for all"
    return "gradients are clipped by the norm of a student's own" if student.recipe.clip is not None else None


def siblings_beside(run: Run) -> Sequence[Cell]:
    """Return the siblings that are trained side by side with the student of a run. The first of those that are left
    trains the next ones with it, in its own run."""
    limit = run.components.runtime.vectorize
    return run.siblings if limit is None or isinstance(limit, bool) else run.siblings[: limit - 1]


@contextlib.contextmanager
def rounds_of(run: Run, total: int) -> Iterator[tuple[Iterable[int], Callable[[dict], None]]]:
    """Yield the remaining rounds, and a function that shows validation metrics in the progress bar."""
    rounds = run.loop("round", total)
    with run.bar(total, "student", rounds.start) as progress:

        def show(validation: dict) -> None:
            progress.set_postfix(validation)
            progress.update()

        yield rounds, show


def _save(run: Run, distillation: Distillation, folder: Path) -> dict:
    """Save a finished student, its best state on validation and samples; returns the metadata for meta.json.

    The model is left with the best state.
    """
    network, figure = run.cell.config["student"]["network"], run.components.scenario.id.modality.figure
    save_classifier(distillation.model, network, folder, "student")
    samples = run.components.student.samples or SAMPLES[figure]
    save_samples(distillation.pool, folder / "samples.safetensors", samples, newest=distillation.online)
    distillation.model.net.load_state_dict(distillation.best.pop("state"))
    save_classifier(distillation.model, network, folder, "student_best_on_validation")
    return {
        "evals": distillation.evals(),
        "seconds_by_phase": distillation.seconds(),
        "fragile_share": round(distillation.fragile_share, 4),
        "validation": distillation.validation,
        "best_on_validation": distillation.best,
        "warnings": distillation.defense.warnings(),
    } | ({"replicas": distillation.students} if distillation.students > 1 else {})


def save_samples(pool: Pool, path: Path, count: int, newest: bool) -> None:
    """Save samples of a pool in one safetensors file: images of all, of the fragile and of the robust group.

    Args:
        pool: the pool.
        path: the file. Its tensors are 'all', 'fragile' and 'robust'; an empty group is left out.
        count: largest number of images in each group.
        newest: whether to take the newest images, or images at equal distances in the pool.
    """
    groups = {"all": torch.ones_like(pool.split.fragile), "fragile": pool.split.fragile, "robust": ~pool.split.fragile}
    samples = {}
    for name, mask in groups.items():
        index = mask.nonzero().flatten()
        if len(index) == 0:
            continue
        spread = torch.linspace(0, len(index) - 1, min(count, len(index)), device=index.device).long()
        samples[name] = pool.pixels(index[-count:] if newest else index[spread]).cpu().contiguous()
    save_file(samples, path)


def _same_answers(teacher: Teacher, student: Classifier, images: Tensor) -> float:
    """Return the share of images for which both models predict the same class, in percent."""
    same = student.predict(images, 10_000).argmax(1) == teacher.predict(images, 10_000).argmax(1)
    return round(100 * same.float().mean().item(), 2)
