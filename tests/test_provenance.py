"""Where a result comes from, as far as it can be known."""

import subprocess

import pytest
from hydra.core.hydra_config import HydraConfig

from dfkd.run import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Stand in a folder of one's own for the checkout; returns it and a function that calls git there."""
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)

    def git(*words: str) -> str:
        known = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(["git", *known, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    return tmp_path, git


def test_the_commit_and_whether_files_were_changed(checkout):
    folder, git = checkout
    git("init", "-q")
    assert provenance.commit() is None  # nothing committed
    (folder / "file").write_text("a")
    git("add", "file"), git("commit", "-q", "-m", "first"), git("tag", "-a", "v1", "-m", "a tag is no commit")
    known = git("rev-parse", "HEAD")[:12]
    assert provenance.commit() == known
    (folder / "file").write_text("b")
    assert provenance.commit() == f"{known}-dirty"


def test_an_installed_package_has_no_commit_even_inside_another_repository(checkout, monkeypatch):
    folder, git = checkout
    git("init", "-q"), git("commit", "-q", "--allow-empty", "-m", "not ours")
    (folder / "site-packages").mkdir()
    monkeypatch.setattr(provenance, "CHECKOUT", folder / "site-packages")
    assert provenance.commit() is None


def test_without_git_the_commit_is_not_known(checkout, monkeypatch):
    checkout[1]("init", "-q")
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None


def test_outside_of_hydra_no_command_is_known():
    assert not HydraConfig.initialized()
    assert provenance.arguments() is None and provenance.command() is None
