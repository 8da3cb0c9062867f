"""What came out of a run: the content of its result.json."""

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
    """Let every stage tell what it came to, and put the students and pictures into the run folder.

    Args:
        pipeline: all of its stages are made.
        began: when the run began, in `time.monotonic()`.
    """
    run, artifacts, started = pipeline.run, pipeline.artifacts, time.monotonic()
    told, warnings = {}, list(run.parts.warnings)
    for name, artifact in artifacts.items():
        stage = run.planned[name].stage
        told |= stage.result(run, artifact)
        warnings += stage.warnings(run, artifact)
    evals = [artifact.meta["evals"] for artifact in artifacts.values() if "evals" in artifact.meta]
    if evals:
        told["teacher_evals"] = {p: sum(e.get(p, 0) for e in evals) for p in ("synthesis", "split", "distill")}
    return {
        "cell": run.cell.name,
        "hash": run.cell.hash,
        "seed": run.cell.config["seed"],
        "config": run.cell.config,
        "command": command(),
        "commit": commit(),
        "versions": installed_versions(),
        "device": device_name(run.parts.runtime.device),
        "ranks": distributed.ranks(),
        "precision": str(run.parts.runtime.precision).removeprefix("torch."),
        "seconds": seconds_by_phase(pipeline, time.monotonic() - started),
        "seconds_this_run": round(time.monotonic() - began, 3),
        "peak_memory_mb": max(artifact.meta.get("peak_memory_mb", 0.0) for artifact in artifacts.values()),
        "stages": {name: {"key": a.key, "reused": a.reused} for name, a in artifacts.items()},
        "warnings": list(dict.fromkeys(warnings)),
    } | told


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result may depend on; W&B may be missing."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def seconds_by_phase(pipeline: Pipeline, evaluation: float) -> dict[str, float]:
    """What the cell costs from nothing, by phase: a reused stage counts with the time it took when it was made.

    Args:
        evaluation: seconds of measuring the students.
    """
    seconds = dict.fromkeys(("teacher", "synthesis", "split", "distill"), 0.0) | {"evaluate": evaluation}
    for name, artifact in pipeline.artifacts.items():
        phase = pipeline.run.planned[name].stage.phase
        spent = artifact.meta.get("seconds_by_phase") or {phase: artifact.meta.get("seconds", 0.0)}
        for part, value in spent.items():
            seconds[part] = seconds.get(part, 0.0) + value
    return {name: round(value, 3) for name, value in (seconds | {"total": sum(seconds.values())}).items()}
