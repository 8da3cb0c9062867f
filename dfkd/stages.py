"""What the stages of a run do: each writes its files into a folder and returns what its meta.json should say."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from dfkd.build import number
from dfkd.distill import Distillation
from dfkd.evaluate import Examiner, premise, premise_in_words
from dfkd.meter import Meter
from dfkd.models import Teacher, load_weights, save_classifier
from dfkd.pool import Pool, Split, Stack
from dfkd.preflight import Parts
from dfkd.runtime import seeded
from dfkd.sweep import in_a_worker

SAMPLES = 64  # images kept for each sample grid
POINTS = 500  # the same of 2-D points, for a scatter plot
SPLIT_AT_ONCE = 500  # images of a finished pool; not runtime.chunk, which must not change what a random stream gives

Log = Callable[[int, dict[str, float]], None]


def bar(total: int, what: str) -> tqdm:
    """A progress bar, silent where there is no terminal, or where parallel cells share it."""
    return tqdm(total=total, desc=f"  {what}", disable=in_a_worker() or None, leave=False, dynamic_ncols=True)


def make_teacher(parts: Parts, network: dict, seed: int, folder: Path, log: Log) -> dict:
    """Train the teacher (or take the checkpoint) and save it."""
    with bar(getattr(parts.teacher, "reports", 1), "teacher") as progress:

        def report(epoch: int, metrics: dict[str, float]) -> None:
            log(epoch, metrics)
            progress.set_postfix(iacc=metrics["val/iacc"])
            progress.update()

        model = parts.teacher.train(parts.scenario, parts.runtime, seed, report)
    save_classifier(model, network, folder, "teacher")
    return {}


def load_teacher(parts: Parts, folder: Path) -> Teacher:
    """The frozen teacher that `make_teacher` saved."""
    about = json.loads((folder / "teacher.json").read_text())
    network = parts.teacher.network
    load_weights(network, load_file(folder / "teacher.safetensors"), str(folder))
    teacher = Teacher(network, tuple(about["shape"]), about["classes"], about["mean"], about["std"])
    return parts.runtime.place(teacher)


def make_premise(parts: Parts, teacher: Teacher, options: dict, seed: int) -> dict:
    """Measure the teacher on the test splits, and ATEsc's premise on the validation splits."""
    eps = [number(e) for e in options["eps"]]
    report = premise(teacher, parts.scenario, parts.runtime, seed, eps, options["steps"], options["images"])
    measured = Examiner(teacher, parts.scenario, parts.runtime)(teacher, "test")
    del measured["agreement"]
    return report | {"teacher": measured, "words": premise_in_words(report)}


def make_pool(parts: Parts, teacher: Teacher, seed: int, folder: Path, log: Log) -> dict:
    """Synthesize the whole pool of an offline method, and label it."""
    synthesizer, runtime, meter, before = parts.synthesizer, parts.runtime, Meter(), teacher.evals.copy()
    synthesizer.start(runtime, seed)
    images, columns = None, []
    with seeded(seed, "synthesis"), bar(synthesizer.rounds, "synthesis") as progress:
        for first in range(0, synthesizer.rounds, synthesizer.at_once):
            rounds = range(first, min(first + synthesizer.at_once, synthesizer.rounds))
            with teacher.counted_as("synthesis"):
                batch = synthesizer.synthesize(rounds, teacher)
            images = images or Stack(len(batch.images) // len(rounds) * synthesizer.rounds)
            images.add(batch.images)
            columns.append(batch.columns)
            meter.add(batch.metrics)
            metrics = meter.read()
            log(rounds[-1], metrics)
            progress.set_postfix({name: f"{value:.3g}" for name, value in list(metrics.items())[-3:]})
            progress.update(len(rounds))
    pool = Pool(images=images.tensor())
    with teacher.counted_as("distill"):
        chunks = range(0, len(pool), runtime.chunk)
        pool.logits = torch.cat([teacher.predict(pool.pixels(slice(i, i + runtime.chunk))).float() for i in chunks])
    pool.split = Split.everything(pool.images)
    pool.columns = {name: torch.cat([each[name] for each in columns]) for name in columns[0]}
    pool.save(folder / "pool.safetensors")
    labels = pool.logits.argmax(1).bincount(minlength=teacher.classes).tolist()
    return {"images": len(pool), "labels": labels, "evals": dict(teacher.evals - before)}


def make_split(parts: Parts, teacher: Teacher, pool: Pool, seed: int, folder: Path) -> dict:
    """Split a finished pool."""
    before, generator = teacher.evals.copy(), parts.runtime.generator(seed, "split")
    splits = []
    with bar(len(pool), "split") as progress:
        for first in range(0, len(pool), SPLIT_AT_ONCE):
            part = slice(first, first + SPLIT_AT_ONCE)
            images = pool.pixels(part)
            splits.append(parts.defense.split(teacher, images, pool.logits[part], generator))
            progress.update(len(images))
    fragile, score = torch.cat([s.fragile for s in splits]), torch.cat([s.score for s in splits])
    save_file({"fragile": fragile.cpu(), "score": score.cpu()}, folder / "split.safetensors")
    return {"evals": dict(teacher.evals - before), "warnings": parts.defense.warnings()}


def load_split(folder: Path, device: torch.device) -> Split:
    """What `make_split` saved."""
    found = load_file(folder / "split.safetensors", str(device))
    return Split(found["fragile"], found["score"])


def make_student(
    parts: Parts, teacher: Teacher, pool: Pool | None, network: dict, seeds: dict, checks: dict, folder: Path, log: Log
) -> dict:
    """Distil a student from a finished pool or (pool = None) while the images are made.

    Args:
        checks: {'checks': number of validations on the way, 'images': at most this many of each domain in them}.

    Saves the last student, the one that was best on validation, and samples of the images.

    Raises:
        NonFiniteLoss: with the last good student saved as student_last_good in the folder above.
    """
    examiner = Examiner(teacher, parts.scenario, parts.runtime, checks["images"])
    with seeded(seeds["student"], "student", "training"):
        work = Distillation(
            parts.student,
            parts.synthesizer,
            parts.defense,
            teacher,
            examiner,
            parts.runtime,
            pool,
            seeds,
            checks["checks"],
            log,
        )
        with bar(work.rounds, "student") as progress:

            def show(validation: dict) -> None:
                progress.set_postfix(validation)
                progress.update()

            work.run(show)
    save_classifier(work.model, network, folder, "student")
    save_samples(work.pool, folder / "samples.safetensors", newest=work.online)
    work.model.net.load_state_dict(work.best.pop("state"))
    save_classifier(work.model, network, folder, "student_best_on_validation")
    return {
        "evals": work.evals(),
        "seconds_by_phase": {phase: round(seconds, 3) for phase, seconds in work.clock.seconds.items()},
        "fragile_share": round(work.fragile_share, 4),
        "validation": work.validation,
        "best_on_validation": work.best,
        "warnings": parts.defense.warnings(),
    }


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
