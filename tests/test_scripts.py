"""The scripts that make data files from what a user has."""

import contextlib
import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from runner import ROOT

from dfkd.domains import npz


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make(monkeypatch, tmp_path, capsys):
    """Run make_domains.py on a folder with two small domains of three classes; returns its error text."""
    module = script("make_domains")
    monkeypatch.setitem(module.SETS, "visda", (("train", "validation"), 3, "http://example.org"))

    def run(*more: str) -> str:
        command = ["make_domains.py", "visda", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *more]
        monkeypatch.setattr(sys, "argv", command)
        with contextlib.suppress(SystemExit):
            module.main()
        return capsys.readouterr().err

    return run


@pytest.fixture
def folders(tmp_path):
    for shade, domain in ((50, "train"), (200, "validation")):
        for label, name in enumerate(("car", "bus", "aeroplane")):  # not in alphabetical order
            folder = tmp_path / "in" / domain / name
            folder.mkdir(parents=True)
            for i in range(5):
                pixels = np.full((10 + i, 12, 3), shade, np.uint8)
                pixels[..., label] = 255
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "in"


def test_folders_become_domains_with_classes_in_alphabetical_order(folders, make, tmp_path):
    assert make("--size", "8", "--per-class", "4", "--test-share", "0.25") == ""
    for name, shade in (("visda_train", 50), ("visda_validation", 200)):
        domain = npz(str(tmp_path / "out" / f"{name}.npz"), size=None, val_share=0.25)
        assert domain.shape == (3, 8, 8) and domain.classes == 3
        assert (len(domain.train) + len(domain.val), len(domain.test)) == (9, 3)
        for part in (domain.train, domain.val, domain.test):
            assert torch.equal(part.x[:, :, 4, 4].argmax(1), 2 - part.y)  # aeroplane 0, bus 1, car 2
            assert (part.x.amin((1, 2, 3)) == shade).all()
        assert domain.test.y.tolist() == [0, 1, 2]


def test_what_is_missing_is_said(folders, make):
    (folders / "train" / "bus").rename(folders / "train" / "boat")
    assert "do not have the same class folders" in make()
    for file in (folders / "train" / "boat").iterdir():
        file.unlink()
    (folders / "train" / "boat").rmdir()
    assert "must hold 3 class folders, found 2 (aeroplane, car ...)" in make()
    (folders / "validation").rename(folders / "photos")
    (folders / "train" / "bus").mkdir()
    assert "there is no" in (said := make()) and "validation" in said and "http://example.org" in said
    (folders / "photos").rename(folders / "validation")
    assert "bus holds 0 images" in make()
    assert "--size must be at least 1" in make("--size", "0")


@pytest.fixture
def sync(monkeypatch, tmp_path):
    """Run sync_wandb.py on two offline runs and an online one; returns how it ended and what it called."""
    pytest.importorskip("wandb")
    module, called = script("sync_wandb"), []
    for name in ("a/wandb/offline-run-1-aaaa", "b/wandb/offline-run-1-bbbb", "c/wandb/run-1-cccc"):
        (tmp_path / "o" / "runs" / name).mkdir(parents=True)
    monkeypatch.setattr(
        module.subprocess, "run", lambda command: called.append(command) or subprocess.CompletedProcess(command, 3)
    )

    def run(*arguments: str, url: str = "http://127.0.0.1:9"):
        monkeypatch.setattr(module.wandb, "setup", lambda: SimpleNamespace(settings=SimpleNamespace(base_url=url)))
        monkeypatch.setattr(sys, "argv", ["sync_wandb.py", *arguments])
        with pytest.raises(SystemExit) as end:
            module.main()
        return end.value.code, called

    return run


def test_offline_runs_are_handed_to_wandb_sync(sync, tmp_path):
    code, called = sync("--outputs", str(tmp_path / "o"), "--dry-run", "--project", "mine")
    runs = [
        str(tmp_path / "o" / "runs" / name) for name in ("a/wandb/offline-run-1-aaaa", "b/wandb/offline-run-1-bbbb")
    ]
    assert called == [[sys.executable, "-m", "wandb", "sync", "--dry-run", "--project", "mine", *runs]] and code == 3


def test_without_network_nothing_is_tried(sync, tmp_path):
    code, called = sync("--outputs", str(tmp_path / "o"))
    assert "http://127.0.0.1:9 cannot be reached" in code and "nothing was uploaded" in code and called == []


def test_without_offline_runs_the_folder_is_asked_for(sync, tmp_path):
    code, called = sync("--outputs", str(tmp_path / "elsewhere"))
    assert "no offline runs" in code and "--outputs DIR" in code and called == []
