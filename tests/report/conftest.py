"""Run folders written by hand."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from dfkd.store.run_folder import RunFolder


@pytest.fixture(autouse=True)
def pictures_are_drawn(pictures):
    """Reports in these tests draw their pictures."""


CONFIG = {
    "ntl_scenario": {"name": "backdoor", "id": {"name": "digits"}},
    "teacher": {"name": "backdoor", "epochs": 3, "network": {"name": "cnn_bn"}},
    "synthesizer": {"name": "dfq"},
    "prior": {"bn": {"weight": 1}, "tv": {"weight": 2}},
    "noise": {"name": "none"},
    "student": {"name": "online", "network": {"name": "cnn_bn"}},
    "defense": {"name": "none"},
    "seed": 0,
    "seeds": {"teacher": 0},
    "runtime": {"device": "cpu", "precision": "float32"},
    "tracker": {"mode": "offline"},
    "outputs": "outputs",
    "data": {"root": "data"},
}


def configuration(seed: int = 0, **changes: object) -> dict:
    """`path=value` changes a value, with `__` for the dots of its path."""
    chosen = copy.deepcopy(CONFIG) | {"seed": seed, "seeds": {"teacher": seed}}
    for path, value in changes.items():
        node = chosen
        *way, last = path.split("__")
        for key in way:
            node = node[key]
        node[last] = value
    return chosen


@pytest.fixture
def unfinished(tmp_path):
    """Make a run folder that has no result."""

    def make(status: dict | str = "running", seed=0, name=None, **changes) -> Path:
        number = len(list(tmp_path.glob("runs/*")))
        folder = tmp_path / "runs" / (name or f"cell_s{seed}-{number:08d}")
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(configuration(seed, **changes)))
        status = {"status": status} if isinstance(status, str) else status
        (folder / "status.json").write_text(json.dumps(status))
        return folder

    return make


@pytest.fixture
def finished(unfinished):
    """Make a run folder with a result of one's own numbers."""

    def make(
        iacc=90.0, asr=50.0, seed=0, warnings=(), teacher_asr=100.0, fragile=1.0, best=95.0, name=None, audit=None,
        **changes,
    ) -> Path:  # fmt: skip
        folder = unfinished("done", seed, name, **changes)
        student = {"iacc": iacc, "oacc": None, "olacc": None, "asr": asr, "agreement": 95.0}
        result = {
            "cell": folder.name,
            "config": configuration(seed, **changes),
            "teacher": {"iacc": 99.0, "oacc": None, "olacc": None, "asr": teacher_asr},
            "student": student,
            "student_best_on_validation": student | {"iacc": best, "round": 3},
            "fragile_share": fragile,
            "teacher_evals": {"synthesis": 3, "split": 0, "distill": 4},
            "seconds": {"total": 10.0, "distill": 2.5},
            "versions": {"torch": "2.9"},
            "device": "a CPU",
            "precision": "float32",
            "warnings": list(warnings),
        }
        if audit is not None:
            result["audit"] = {"probability": audit}
        rows = [{"stage": "student", "step": step, "val/iacc": 30.0 * step} for step in range(4)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        RunFolder(folder).write_result(result)
        return folder

    return make


@pytest.fixture
def pictured(finished):
    """Make a run folder with pictures, too."""

    def make(*pictures: str, **cell) -> Path:
        folder = finished(**cell)
        for i, name in enumerate(pictures):
            Image.new("RGB", (900, 300), (40 * i, 90, 200)).save(folder / f"{name}.png")
        return folder

    return make


@pytest.fixture
def listed(tmp_path):
    """Write a sweep's list: (folder or None, status, error, arguments) a cell."""

    def make(*cells: tuple) -> Path:
        file = tmp_path / "sweeps" / f"{len(list(tmp_path.glob('sweeps/*')))}.jsonl"
        file.parent.mkdir(exist_ok=True)
        keys = ("folder", "status", "error", "arguments")
        rows = [
            {"number": i} | dict(zip(keys, (folder and str(folder), *rest), strict=True))
            for i, (folder, *rest) in enumerate(cells)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))  # parallel cells: another order
        return file

    return make
