"""One cell from configuration to run folder."""

import contextlib
import json
import logging
import os
import platform
import shutil
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from dfkd.cell import Cell
from dfkd.errors import NonFiniteLoss
from dfkd.evaluate import Examiner, premise_in_words
from dfkd.machine import distributed
from dfkd.machine.precision import choose_precision
from dfkd.models import Classifier, Teacher, load_classifier
from dfkd.pipeline import Pipeline
from dfkd.preflight import Parts, prepare
from dfkd.provenance import command, commit
from dfkd.resume.state import Misfit
from dfkd.runtime import device_name
from dfkd.store import file_digest, file_lock, write_atomic
from dfkd.tracker import read_rows

log = logging.getLogger("dfkd")
PACKAGES = ("dfkd", "torch", "torchvision", "timm", "hydra-core", "wandb", "numpy", "scikit-learn")


def run_cell(cell: Cell, replicas: Sequence[Cell] = ()) -> dict:
    """Run a cell, or return its result if it was finished before.

    Args:
        replicas: cells that differ in the student's seed only, and are to be run next: their students may be trained
            with this one's.

    Returns:
        the content of its result.json; nothing on another rank than the first.

    Raises:
        ConfigError: it cannot run; nothing was done.
        Exception: it failed on the way. The run folder's status.json says how; finished stages are kept.
    """
    with distributed.one_at_first():
        parts = prepare(cell)
    for warning in parts.warnings:
        log.warning("  WARNING  %s", warning)
    distributed.barrier()  # no rank begins before all are prepared
    with claimed(cell):
        done = distributed.by_first(cell.finished)  # by another process, while we waited
        if done is not None:
            return done
        try:
            return _run(cell, parts, replicas)
        except Misfit as error:
            log.warning("  WARNING  a checkpoint does not fit and is dropped, its stage begins anew (%s)", error)
            return _run(cell, prepare(cell), replicas)


def claimed(cell: Cell) -> contextlib.AbstractContextManager:
    """Inside the block no other process runs the cell, beside the ranks of this run."""
    if not distributed.is_first():
        return contextlib.nullcontext()
    cell.folder.mkdir(parents=True, exist_ok=True)
    return file_lock(cell.folder / ".lock", f"cell {cell.name}")


def _run(cell: Cell, parts: Parts, replicas: Sequence[Cell]) -> dict:
    if not distributed.is_first():
        parts.runtime = choose_precision(cell, parts)
        Pipeline(cell, parts, parts.tracker, replicas).run()
        return {}
    write_atomic(cell.folder / "config.yaml", yaml.safe_dump(cell.config, sort_keys=False))
    tracker, result = parts.tracker, None
    pipeline = Pipeline(cell, parts, tracker, replicas)
    keys = {name: stage.key for name, stage in pipeline.graph.items()}
    write_atomic(cell.folder / "stages.json", json.dumps(keys, indent=2) + "\n")  # dfkd.store keeps what it names
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    set_status(cell, "running", pid=os.getpid(), host=platform.node(), started=started)
    (cell.folder / "result.json").unlink(missing_ok=True)
    try:
        tracker.start(cell.folder, cell.name, cell.config)
        began = time.monotonic()
        parts.runtime = choose_precision(cell, parts)
        pipeline.run()
        result = export(pipeline, began)
        for path in sorted(cell.folder.glob("*.png")):
            tracker.image(path.stem, path)
        write_atomic(cell.folder / "result.json", json.dumps(result, indent=2) + "\n")
        set_status(cell, "done")
        return result
    except BaseException as error:
        result, why = None, distributed.reason(error)
        kind = "interrupted" if isinstance(why, KeyboardInterrupt | SystemExit) else "failed"
        told = getattr(why, "traceback", traceback.format_exc())
        set_status(cell, kind, error=f"{type(why).__name__}: {why}", traceback=told)
        if isinstance(error, NonFiniteLoss) and error.state is not None:
            last_good = {name: value.contiguous() for name, value in error.state.items()}
            save_file(last_good, cell.folder / "student_last_good.safetensors")
        raise
    finally:
        tracker.finish(result)


def set_status(cell: Cell, status: str, **more: str | int) -> None:
    """Write status.json: 'running' (with the process, host and time of the beginning), 'done', 'failed' or
    'interrupted' (with the error and its traceback), and the command that repeats the cell."""
    said = {"status": status, "command": command(), **more}
    known = {key: value for key, value in said.items() if value is not None}
    write_atomic(cell.folder / "status.json", json.dumps(known, indent=2) + "\n")


def export(pipeline: Pipeline, began: float) -> dict:
    """Fill the run folder from the finished stages; returns the result, of the teacher alone where nothing was
    distilled (until=premise)."""
    cell, parts, artifacts = pipeline.cell, pipeline.parts, pipeline.artifacts
    started = time.monotonic()
    of_student = export_student(pipeline) if "student" in artifacts else {}
    premise = artifacts["premise"].meta
    metas = {name: artifact.meta for name, artifact in artifacts.items()}
    seconds = seconds_by_phase(metas, time.monotonic() - started)
    warnings = list(parts.warnings) + premise["warnings"]
    for stage in ("split", "student"):
        warnings += [f"split: {text}" for text in metas.get(stage, {}).get("warnings", [])]
    words, fails = premise_in_words(premise, parts.defense.radius)
    if fails:
        warnings.append(words)
    return {
        "cell": cell.name,
        "hash": cell.hash,
        "seed": cell.config["seed"],
        "config": cell.config,
        "command": command(),
        "commit": commit(),
        "versions": installed_versions(),
        "device": device_name(parts.runtime.device),
        "ranks": distributed.ranks(),
        "precision": str(parts.runtime.precision).removeprefix("torch."),
        "teacher": premise["teacher"],
        "flip_rates": premise["flip_rates"],
        "premise": {key: premise[key] for key in ("id_confidence", "ood_confidence", "holds")} | {"words": words},
        "seconds": seconds,
        "seconds_this_run": round(time.monotonic() - began, 3),
        "peak_memory_mb": max(meta.get("peak_memory_mb", 0.0) for meta in metas.values()),
        "stages": {name: {"key": a.key, "reused": a.reused} for name, a in artifacts.items()},
        "warnings": list(dict.fromkeys(warnings)),
    } | of_student


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result may depend on; W&B may be missing."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def export_student(pipeline: Pipeline) -> dict:
    """Copy the students into the run folder, draw the pictures, measure; returns what the result says of them."""
    from dfkd import figures  # half a second to import, not needed before

    cell, parts, artifacts = pipeline.cell, pipeline.parts, pipeline.artifacts
    made = artifacts["student"]
    for name in ("student", "student_best_on_validation"):
        for suffix in (".safetensors", ".json"):
            shutil.copyfile(made.path / f"{name}{suffix}", cell.folder / f"{name}{suffix}")
    examiner = Examiner(pipeline.teacher, parts.scenario, parts.runtime)
    best = _student(pipeline, "student_best_on_validation")
    best_measured = examiner(best, "test") | {
        "round": made.meta["best_on_validation"]["round"],
        "val_iacc": made.meta["best_on_validation"]["iacc"],
    }
    student = _student(pipeline, "student")
    measured = examiner(student, "test")
    samples = load_file(made.path / "samples.safetensors")
    points = parts.scenario.id.shape == (1, 2, 1)
    for name, images in ({} if points else samples).items():
        figures.sample_grid(images, f"{name}: {len(images)} synthetic images", cell.folder / f"samples_{name}.png")
    rows = read_rows(made.path / "metrics.jsonl")
    figures.training_curves(rows, artifacts["premise"].meta["teacher"], cell.folder / "curves.png")
    if points:
        grid = figures.field_grid(parts.scenario.id)
        measured["grid_agreement"] = _same_answers(pipeline.teacher, student, grid)
        figures.decision_fields(
            pipeline.teacher, student, parts.scenario.id, samples["all"], cell.folder / "decision_fields.png"
        )
    evals = [artifact.meta.get("evals", {}) for artifact in artifacts.values()]
    pool = artifacts.get("pool")
    return {
        "student": measured,
        "student_best_on_validation": best_measured,
        "validation": made.meta["validation"],
        "fragile_share": made.meta["fragile_share"],
        "teacher_evals": {p: sum(e.get(p, 0) for e in evals) for p in ("synthesis", "split", "distill")},
        "pool_labels": pool.meta["labels"] if pool else None,
        "student_digest": file_digest(cell.folder / "student.safetensors"),
    }


def seconds_by_phase(metas: dict[str, dict], evaluation: float) -> dict[str, float]:
    """What the cell costs from nothing, by phase: a reused stage counts with the time it took when it was made."""
    phases = metas.get("student", {}).get("seconds_by_phase", {})

    def spent(stage: str) -> float:
        return metas.get(stage, {}).get("seconds", 0.0)

    seconds = {
        "teacher": spent("teacher"),
        "synthesis": spent("pool") + phases.get("synthesis", 0.0),
        "split": spent("split") + phases.get("split", 0.0),
        "distill": phases.get("distill", 0.0),
        "evaluate": spent("premise") + phases.get("evaluate", 0.0) + evaluation,
    }
    return {name: round(value, 3) for name, value in (seconds | {"total": sum(seconds.values())}).items()}


def _student(pipeline: Pipeline, name: str) -> Classifier:
    network = pipeline.parts.student.network
    model = load_classifier(pipeline.artifacts["student"].path / f"{name}.json", net=network)
    return pipeline.parts.runtime.place(model)


def _same_answers(teacher: Teacher, student: Classifier, images: Tensor) -> float:
    """For how many images both give the same class, in percent."""
    same = student.predict(images, 10_000).argmax(1) == teacher.predict(images, 10_000).argmax(1)
    return round(100 * same.float().mean().item(), 2)
