"""What the stages of a run do: each writes its files into a folder and returns what its meta.json should say.

Of several ranks that make one together, only the first is given a folder, and answers.
"""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from dfkd.distill import Distillation, Replicas, Student
from dfkd.evaluate import Examiner, premise
from dfkd.machine import distributed
from dfkd.meter import Meter
from dfkd.models import Teacher, load_weights, save_classifier
from dfkd.pool import Pool, Split, Stack
from dfkd.preflight import Parts
from dfkd.resume.checkpoints import Checkpoints
from dfkd.runtime import seeded
from dfkd.sweeps.sweep import in_a_worker
from dfkd.synthesizers import Synthesizer, Synthetic

SAMPLES = 64  # images kept for each sample grid
POINTS = 500  # the same of 2-D points, for a scatter plot
SPLIT_AT_ONCE = 500  # images of a finished pool; not runtime.chunk, which must not change what a random stream gives

Log = Callable[[int, dict[str, float]], None]


def row(stage: str, step: int, metrics: dict[str, float]) -> dict:
    """What is kept of the metrics of a step."""
    return {"stage": stage, "step": step} | {name: round(value, 6) for name, value in metrics.items()}


def bar(total: int, what: str, start: int = 0) -> tqdm:
    """A progress bar, silent where there is no terminal, or where parallel cells or ranks share it."""
    options = {"disable": in_a_worker() or not distributed.is_first() or None, "leave": False, "dynamic_ncols": True}
    return tqdm(total=total, initial=start, desc=f"  {what}", **options)


def make_teacher(parts: Parts, network: dict, seed: int, folder: Path | None, log: Log) -> dict:
    """Train the teacher (or take the checkpoint) and save it."""
    reported = len(parts.runtime.checkpoints.rows)
    with bar(getattr(parts.teacher, "reports", 1), "teacher", reported) as progress:

        def report(epoch: int, metrics: dict[str, float]) -> None:
            log(epoch, metrics)
            progress.set_postfix(iacc=metrics["val/iacc"])
            progress.update()

        model = parts.teacher.train(parts.scenario, parts.runtime, seed, report)
    if folder is not None:
        save_classifier(model, network, folder, "teacher")
    return {}


def load_teacher(parts: Parts, folder: Path) -> Teacher:
    """The frozen teacher that `make_teacher` saved."""
    about = json.loads((folder / "teacher.json").read_text())
    network = parts.teacher.network
    load_weights(network, load_file(folder / "teacher.safetensors"), str(folder))
    teacher = Teacher(network, tuple(about["shape"]), about["classes"], about["mean"], about["std"])
    return parts.runtime.place(teacher)


def make_premise(parts: Parts, teacher: Teacher, radii: list[float], options: dict, seed: int) -> dict:
    """Measure the teacher on the test splits, and ATEsc's premise at the radii on the validation splits."""
    report = premise(teacher, parts.scenario, parts.runtime, seed, radii, options["steps"], options["images"])
    measured = Examiner(teacher, parts.scenario, parts.runtime)(teacher, "test")
    del measured["agreement"]
    return report | {"teacher": measured}


def make_pool(parts: Parts, teacher: Teacher, seed: int, folder: Path | None, log: Log) -> dict:
    """Synthesize the whole pool of an offline method, and label it."""
    synthesizer, runtime, meter, before = parts.synthesizer, parts.runtime, Meter(), teacher.evals.copy()
    synthesizer.start(runtime, seed)
    images, checkpoints = Stack(runtime.home), runtime.checkpoints
    columns: dict[str, list[Tensor]] = {}
    known: list[Tensor] = []  # answers that came with the images
    logits: list[Tensor] = []
    checkpoints.keep(teacher=teacher, synthesizer=synthesizer, before=before, meter=meter)
    checkpoints.keep(images=images, columns=columns, known=known, logits=logits)
    with seeded(seed, "synthesis"):
        todo = checkpoints.loop("round", synthesizer.rounds, synthesizer.at_once * distributed.team())
        with bar(synthesizer.rounds, "synthesis", todo.start) as progress:
            for first in todo:
                for rounds, batch in synthesized(synthesizer, first, teacher):
                    images.add(batch.images, len(batch.images) // len(rounds) * synthesizer.rounds)
                    known += [] if batch.logits is None else [batch.logits]
                    for name, column in batch.columns.items():
                        columns.setdefault(name, []).append(column)
                    meter.add(batch.metrics)
                    metrics = meter.read()
                    log(rounds[-1], metrics)
                    progress.set_postfix({name: f"{value:.3g}" for name, value in list(metrics.items())[-3:]})
                    progress.update(len(rounds))
    if folder is None:
        return {}
    pool = Pool(images=images.tensor())
    with teacher.counted_as("distill"), distributed.alone():
        for i in checkpoints.loop("image", 0 if known else len(pool), runtime.chunk):
            logits.append(teacher.predict(pool.pixels(slice(i, i + runtime.chunk))).float())
    pool.logits = torch.cat(known or logits)
    pool.split = Split.everything(pool.images)
    pool.columns = {name: torch.cat(parts) for name, parts in columns.items()}
    pool.save(folder / "pool.safetensors")
    labels = pool.logits.argmax(1).bincount(minlength=teacher.classes).tolist()
    return {"images": len(pool), "labels": labels, "evals": dict(teacher.evals - before)}


def synthesized(synthesizer: Synthesizer, first: int, teacher: Teacher) -> list[tuple[range, Synthetic]]:
    """Make the images of the rounds from `first` on: `at_once` of them, or so many on each of the ranks that share the
    synthesis. Which rounds are made in one call does not depend on the number of ranks, and so not a bit of the images.

    Returns:
        (rounds, images) in order, on the first rank; nothing on the others.
    """
    team, device = distributed.team(), synthesizer.runtime.device
    ends = [first + i * synthesizer.at_once for i in range(team + 1)]
    todo = [range(a, min(b, synthesizer.rounds)) for a, b in itertools.pairwise(ends)]
    mine, before, batch = todo[distributed.rank() % team], teacher.evals.copy(), None
    with teacher.counted_as("synthesis"), distributed.alone():
        if mine:  # the last rounds may not be enough for all ranks
            batch = synthesizer.synthesize(mine, teacher).to("cpu" if team > 1 else device)
    made = distributed.gather((batch, teacher.evals - before))
    for _, spent in made[1:]:
        teacher.evals.update(spent)
    return [(rounds, batch.to(device)) for rounds, (batch, _) in zip(todo, made, strict=False) if rounds]


def make_split(parts: Parts, teacher: Teacher, pool: Pool, seed: int, folder: Path) -> dict:
    """Split a finished pool."""
    before, generator = teacher.evals.copy(), parts.runtime.generator(seed, "split")
    found: dict[str, list[Tensor]] = {"fragile": [], "score": []}
    parts.runtime.checkpoints.keep(
        teacher=teacher, defense=parts.defense, generator=generator, before=before, found=found
    )
    todo = parts.runtime.checkpoints.loop("image", len(pool), SPLIT_AT_ONCE)
    with bar(len(pool), "split", todo.start) as progress:
        for first in todo:
            part = slice(first, first + SPLIT_AT_ONCE)
            images = pool.pixels(part)
            split = parts.defense.split(teacher, images, pool.logits[part], generator)
            found["fragile"].append(split.fragile)
            found["score"].append(split.score)
            progress.update(len(images))
    save_file({name: torch.cat(values).cpu() for name, values in found.items()}, folder / "split.safetensors")
    return {"evals": dict(teacher.evals - before), "warnings": parts.defense.warnings()}


def load_split(folder: Path, device: torch.device) -> Split:
    """What `make_split` saved."""
    found = load_file(folder / "split.safetensors", str(device))
    return Split(found["fragile"], found["score"])


def make_student(
    parts: Parts,
    teacher: Teacher,
    pool: Pool | None,
    network: dict,
    seeds: dict,
    checks: dict,
    folder: Path | None,
    log: Log,
) -> dict:
    """Distil a student from a finished pool or (pool = None) while the images are made.

    Args:
        checks: {'checks': number of validations on the way, 'images': at most this many of each domain in them}.

    Saves the last student, the one that was best on validation, and samples of the images.

    Raises:
        NonFiniteLoss: with the last good student saved as student_last_good in the folder above.
    """
    with seeded(seeds["student"], "student", "training"):
        work = distillation(parts, parts.student, teacher, pool, seeds, checks, log)
        parts.runtime.checkpoints.keep(teacher=teacher, model=work.model, work=work)
        distil(work, parts.runtime.checkpoints, work.rounds)
    return {} if folder is None else save_student(work, network, folder)


def make_students(
    parts: Parts,
    students: list[Student],
    teacher: Teacher,
    pool: Pool,
    network: dict,
    seeds: list[dict],
    checks: dict,
    keep: Callable[[int, list[dict], Callable[[Path], dict]], None],
    folder: Path,
    log: Log,
) -> dict:
    """Distil several students from a finished pool in one program.

    Args:
        students, seeds: of each; what is returned, logged and saved in the folder is the first one's.
        keep: called for each of the others with its place, rows of metrics, and what saves it in a folder and returns
            what its meta.json should say.

    Raises:
        NonFiniteLoss: of any of them.
    """
    rows: list[list[dict]] = [[] for _ in students]

    def note(place: int) -> Log:
        return log if place == 0 else lambda step, metrics: rows[place].append(row("student", step, metrics))

    checkpoints = parts.runtime.checkpoints
    with seeded(seeds[0]["student"], "student", "training"):
        works = [
            distillation(parts, student, teacher, pool, seed, checks, note(place))
            for place, (student, seed) in enumerate(zip(students, seeds, strict=True))
        ]
        replicas = Replicas(works)
        checkpoints.keep(teacher=teacher, models=[work.model for work in works], works=works, replicas=replicas)
        checkpoints.keep(rows=rows)
        distil(replicas, checkpoints, works[0].rounds)
    seconds = round(checkpoints.seconds / len(works), 3)
    for place, work in enumerate(works[1:], 1):
        keep(place, rows[place], lambda to, work=work: save_student(work, network, to) | {"seconds": seconds})
    return save_student(works[0], network, folder)


def distillation(
    parts: Parts, student: Student, teacher: Teacher, pool: Pool | None, seeds: dict, checks: dict, log: Log
) -> Distillation:
    """See `make_student`."""
    examiner = Examiner(teacher, parts.scenario, parts.runtime, checks["images"])
    synthesizer, defense, runtime = parts.synthesizer, parts.defense, parts.runtime
    return Distillation(student, synthesizer, defense, teacher, examiner, runtime, pool, seeds, checks["checks"], log)


def distil(work: Distillation | Replicas, checkpoints: Checkpoints, total: int) -> None:
    """Do all rounds that are left to be done."""
    rounds = checkpoints.loop("round", total)
    with bar(total, "student", rounds.start) as progress:

        def show(validation: dict) -> None:
            progress.set_postfix(validation)
            progress.update()

        work.run(show, rounds)


def save_student(work: Distillation, network: dict, folder: Path) -> dict:
    """Save a student that is done; returns what meta.json should say."""
    save_classifier(work.model, network, folder, "student")
    save_samples(work.pool, folder / "samples.safetensors", newest=work.online)
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


def save_samples(pool: Pool, path: Path, newest: bool) -> None:
    """Images of the pool: all, fragile and robust ones, the newest or (of a finished pool) evenly chosen."""
    groups = {"all": torch.ones_like(pool.split.fragile), "fragile": pool.split.fragile, "robust": ~pool.split.fragile}
    count = POINTS if pool.images[0].numel() == 2 else SAMPLES
    samples = {}
    for name, mask in groups.items():
        index = mask.nonzero().flatten()
        if len(index) == 0:
            continue
        spread = torch.linspace(0, len(index) - 1, min(count, len(index)), device=index.device).long()
        samples[name] = pool.pixels(index[-count:] if newest else index[spread]).cpu().contiguous()
    save_file(samples, path)
