"""The content of a run's result.json."""

import contextlib
import platform
import time
from importlib.metadata import PackageNotFoundError, version

from dfkd.machine import distributed
from dfkd.machine.runtime import device_name
from dfkd.run.provenance import command, commit
from dfkd.stages.pipeline import Pipeline

PACKAGES = ("dfkd", "torch", "torchvision", "timm", "hydra-core", "wandb", "numpy", "scikit-learn")


def make_result(pipeline: Pipeline, began: float) -> dict:
    """Collect the results of all stages (`Stage.result`), which also put students and figures into the run folder.

    Args:
        pipeline: the pipeline after all of its stages are made.
        began: start of the run, as `time.monotonic()`.

    Returns:
        the content of result.json without checksums.
    """
    run, artifacts, started = pipeline.run, pipeline.artifacts, time.monotonic()
    entries, warnings, evals = {}, list(run.components.warnings), []
    for name, artifact in artifacts.items():
        stage = run.planned[name].stage
        entries |= stage.result(run, artifact)
        warnings += stage.warnings(run, artifact)
        evals.append(stage.evals(run, artifact))
    if any(evals):
        entries["teacher_evals"] = {p: sum(e.get(p, 0) for e in evals) for p in ("synthesis", "split", "distill")}
    return {
        "cell": run.cell.name,
        "hash": run.cell.hash,
        "seed": run.cell.config["seed"],
        "config": run.cell.config,
        "command": command(),
        "commit": commit(),
        "versions": installed_versions(),
        "device": device_name(run.components.runtime.device),
        "ranks": distributed.ranks(),
        "precision": run.components.runtime.precision,
        "seconds": seconds_by_phase(pipeline, time.monotonic() - started),
        "seconds_this_run": round(time.monotonic() - began, 3),
        "peak_memory_mb": max(artifact.meta.get("peak_memory_mb", 0.0) for artifact in artifacts.values()),
        "stages": {name: {"key": a.key, "reused": a.reused} for name, a in artifacts.items()},
        "warnings": list(dict.fromkeys(warnings)),
    } | entries


def installed_versions() -> dict[str, str]:
    """Return {package: version} of Python and of the packages that a result may depend on. A package that is not
    installed, such as W&B, is left out."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def seconds_by_phase(pipeline: Pipeline, evaluation: float) -> dict[str, float]:
    """Return {phase: seconds} that the cell costs without a store, and their 'total': a reused stage counts with the
    time that it took when it was made.

    Args:
        evaluation: seconds that the evaluation of the students took.
    """
    seconds = dict.fromkeys(("teacher", "synthesis", "split", "distill"), 0.0) | {"evaluate": evaluation}
    for name, artifact in pipeline.artifacts.items():
        phase = pipeline.run.planned[name].stage.phase
        spent = artifact.meta.get("seconds_by_phase") or {phase: artifact.meta.get("seconds", 0.0)}
        for part, value in spent.items():
            seconds[part] = seconds.get(part, 0.0) + value
    return {name: round(value, 3) for name, value in (seconds | {"total": sum(seconds.values())}).items()}
