"""The last stage: the student, distilled from a finished pool, or during the synthesis of the images."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dfkd.config.cell import Cell
from dfkd.distill import Distillation, Replicas, Student
from dfkd.errors import NonFiniteLoss, NotTogether
from dfkd.evaluate import Examiner
from dfkd.machine import distributed
from dfkd.machine.data_parallel import has_dropout, why_not_shared
from dfkd.machine.runtime import seeded
from dfkd.metrics import own_content
from dfkd.models import Classifier, Teacher, load_classifier, save_classifier
from dfkd.pool import Pool
from dfkd.stages.parts import Parts
from dfkd.stages.pool import synthesis_content
from dfkd.stages.prepare import student_of
from dfkd.stages.stage import Log, Run, Stage, metrics_row, planned_stages
from dfkd.store.digest import file_digest
from dfkd.store.store import Artifact
from dfkd.tracker import read_rows

SAMPLES = {"grid": 64, "field": 500, "projection": 500}  # number of saved samples, by `Modality.figure`


class StudentStage(Stage):
    """Trains the student. Gives its state after the last round (`dfkd.models.Classifier`, in evaluation mode).

    The artifact holds the student after the last round, the student that was best on validation images, and samples of
    the synthetic images.

    Siblings (students of the same pool with other seeds, `student.replicas`) are trained with it in one program where
    that is faster. Their artifacts are put into the store, where their own runs find them.
    """

    name, version, phase = "student", 5, "distill"

    def content(self, cell: Cell, parts: Parts) -> dict:
        checks = {key: cell.config["evaluate"][key] for key in ("checks", "images")}
        content = cell.content("student", "defense", "ntl_scenario", "seeds")
        return content | {"synthesis": synthesis_content(cell)} | checks | own_content(cell.config, "each_round")

    def fed_by(self, cell: Cell, parts: Parts) -> tuple[str, ...]:
        return ("teacher",) if parts.synthesizer.online else ("pool", "split")  # the pool's key covers the teacher

    def make(self, run: Run, folder: Path | None, log: Log) -> dict:
        if run.siblings:
            reason = why_in_turn(run.parts)
            how = f"in turn ({reason})" if reason else "in one program"
            run.say(f"{1 + len(run.siblings)} students to train, {how}")
            if reason is None:
                return self._make_together(run, folder, log)
        seeds = run.cell.config["seeds"]
        with seeded(seeds["student"], "student", "training"):
            work = self._distillation(run, run.parts.student, seeds, log)
            run.keep(teacher=run.given["teacher"], model=work.model, work=work)
            with rounds_of(run, work.rounds) as (rounds, show):
                work.run(show, rounds)
        return {} if folder is None else _save(run, work, folder)

    def _make_together(self, run: Run, folder: Path, log: Log) -> dict:
        """Distil the student and its siblings in one program, and store the artifacts of the siblings.

        Raises:
            NotTogether: torch cannot train them in one program, a loss is not finite, or the GPU memory is too small.
        """
        cells, parts = (run.cell, *run.siblings), run.parts
        students = [parts.student, *(student_of(cell, parts) for cell in run.siblings)]
        rows: list[list[dict]] = [[] for _ in cells]

        def note(place: int) -> Log:
            return (
                log if place == 0 else lambda step, metrics: rows[place].append(metrics_row(self.name, step, metrics))
            )

        try:
            with seeded(run.cell.config["seeds"]["student"], "student", "training"):
                works = [
                    self._distillation(run, student, cell.config["seeds"], note(place))
                    for place, (student, cell) in enumerate(zip(students, cells, strict=True))
                ]
                together = Replicas(works)
                run.keep(teacher=run.given["teacher"], models=[work.model for work in works], works=works)
                run.keep(replicas=together, rows=rows)
                with rounds_of(run, works[0].rounds) as (rounds, show):
                    together.run(show, rounds)
        except (NonFiniteLoss, torch.OutOfMemoryError) as error:
            raise NotTogether(str(error).splitlines()[0]) from error
        seconds = round(run.checkpoints.seconds / len(works), 3)
        for cell, work, own in list(zip(cells, works, rows, strict=True))[1:]:
            planned = planned_stages(cell, parts)[self.name]

            def build(to: Path, work: Distillation = work, own: list[dict] = own) -> dict:
                (to / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
                return _save(run, work, to) | {"seconds": seconds}

            run.store.fetch(self.name, planned.key, build, planned.content, planned.inputs)
        return _save(run, works[0], folder)

    def _distillation(self, run: Run, student: Student, seeds: dict[str, int], log: Log) -> Distillation:
        parts, checks, pool = run.parts, run.cell.config["evaluate"], run.given.get("pool")
        metrics = [metric for metric in parts.metrics if metric.each_round]
        if pool is None:
            parts.synthesizer.loop = run.loop
        return Distillation(
            student,
            parts.synthesizer,
            parts.defense,
            run.given["teacher"],
            Examiner(run.given["teacher"], parts.scenario, parts.runtime, checks["images"], metrics),
            parts.runtime,
            None if pool is None else pool.keep(student.keep),
            seeds,
            checks["checks"],
            log,
            run.loop,
        )

    def why_alone(self, run: Run) -> str | None:
        parts, pool = run.parts, run.given.get("pool")
        if not parts.defense.mean_loss:
            return "the defense's loss looks at a batch as a whole"
        if pool is None:  # several ranks never have an online synthesizer: `dfkd.stages.checks` refuses it
            return ""
        images = min(parts.student.recipe.batch_size, len(pool.keep(parts.student.keep)))
        return why_not_shared(parts.student.network, images, parts.runtime.device)

    def load(self, run: Run, artifact: Artifact) -> Classifier:
        return self._load(run, artifact, "student")

    def result(self, run: Run, artifact: Artifact) -> dict:
        """Copy the students into the run folder, draw their figures there, and measure the students on the test splits;
        returns the entries for result.json."""
        from dfkd.stages import figures  # the import takes half a second and is only needed here

        parts, folder, teacher, meta = run.parts, run.cell.folder, run.given["teacher"], artifact.meta
        for name in ("student", "student_best_on_validation"):
            for suffix in (".safetensors", ".json"):
                shutil.copyfile(artifact.path / f"{name}{suffix}", folder / f"{name}{suffix}")
        examiner = Examiner(teacher, parts.scenario, parts.runtime, metrics=parts.metrics)
        domain = parts.scenario.id
        best = examiner(self._load(run, artifact, "student_best_on_validation"), "test")
        best |= {"round": meta["best_on_validation"]["round"], "val_iacc": meta["best_on_validation"]["iacc"]}
        student = self._load(run, artifact, "student")
        measured = examiner(student, "test")
        samples = load_file(artifact.path / "samples.safetensors")
        rows = read_rows(artifact.path / "metrics.jsonl")
        figures.training_curves(rows, run.given["judgement"], parts.metrics, folder / "curves.png")
        figure = domain.modality.figure
        if figure == "field":
            grid = figures.field_grid(domain)
            measured["grid_agreement"] = _same_answers(teacher, student, grid)
            figures.decision_fields(teacher, student, domain, samples["all"], folder / "decision_fields.png")
        elif figure == "projection":
            figures.projection(teacher, domain, samples["all"], folder / "projection.png")
        else:
            for name, images in samples.items():
                title = f"{name}: {len(images)} synthetic images"
                figures.sample_grid(images, title, folder / f"samples_{name}.png")
        return ({} if "pool" in run.given else {"pool_labels": None}) | {
            "student": measured,
            "student_best_on_validation": best,
            "validation": meta["validation"],
            "fragile_share": meta["fragile_share"],
            "student_digest": file_digest(folder / "student.safetensors"),
        }

    def _load(self, run: Run, artifact: Artifact, name: str) -> Classifier:
        model = load_classifier(artifact.path / f"{name}.json", net=run.parts.student.network)
        return run.parts.runtime.place(model)


def why_in_turn(parts: Parts) -> str | None:
    """Return why the students of `student.replicas` are trained one after the other; None if in one program."""
    runtime, student = parts.runtime, parts.student
    if not (runtime.device.type == "cuda" if runtime.vectorize is None else runtime.vectorize):
        return "runtime.vectorize=false" if runtime.vectorize is False else "on a CPU one program is slower"
    if distributed.ranks() > 1:
        return "the ranks share every one of them"
    if parts.defense.has_student_term:
        return "the defense's term of the student's loss draws for one student"
    if has_dropout(student.network):
        return "dropout draws for all of a program at once"
    return "gradients are clipped by the norm of a student's own" if student.recipe.clip is not None else None


@contextlib.contextmanager
def rounds_of(run: Run, total: int) -> Iterator[tuple[Iterable[int], Callable[[dict], None]]]:
    """Yield the remaining rounds, and a function that shows validation metrics in the progress bar."""
    rounds = run.loop("round", total)
    with run.bar(total, "student", rounds.start) as progress:

        def show(validation: dict) -> None:
            progress.set_postfix(validation)
            progress.update()

        yield rounds, show


def _save(run: Run, work: Distillation, folder: Path) -> dict:
    """Save a finished student, its best state on validation and samples; returns the metadata for meta.json.

    The model is left with the best state.
    """
    network, figure = run.cell.config["student"]["network"], run.parts.scenario.id.modality.figure
    save_classifier(work.model, network, folder, "student")
    save_samples(work.pool, folder / "samples.safetensors", SAMPLES[figure], newest=work.online)
    work.model.net.load_state_dict(work.best.pop("state"))
    save_classifier(work.model, network, folder, "student_best_on_validation")
    return {
        "evals": work.evals(),
        "seconds_by_phase": work.seconds(),
        "fragile_share": round(work.fragile_share, 4),
        "validation": work.validation,
        "best_on_validation": work.best,
        "warnings": work.defense.warnings(),
    } | ({"replicas": work.students} if work.students > 1 else {})


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
