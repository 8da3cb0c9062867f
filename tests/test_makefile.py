"""The targets that repeat the tables name experiments that exist, and every synthesizer is among them."""

import re
import shutil
import subprocess

import pytest
from runner import ROOT
from shipped import options

from dfkd.main import CONF

TABLES = ("study", "family", "family-mnist", "teachers", "defenses")
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def experiments(target: str) -> list[str]:
    """What a target would run."""
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [name for chosen in re.findall(r"experiment=(\S+)", done.stdout) for name in chosen.split(",")]


@pytest.mark.parametrize("target", TABLES)
def test_a_table_is_of_experiments_that_exist(target):
    found = experiments(target)
    assert found
    for name in found:
        assert (CONF / "experiment" / f"{name}.yaml").exists(), name


@pytest.mark.parametrize("target", ["family", "family-mnist"])
def test_a_family_has_every_synthesizer(target):
    methods = [name for name in options("synthesizer") if not re.match(r"cake_(?!generator)|dafl_", name)]
    assert {name.partition("/")[0] for name in experiments(target)} == set(methods)


def test_the_small_tables_are_ablations_in_small_size():
    done = subprocess.run(["make", "-n", "paper-small"], cwd=ROOT, capture_output=True, text=True)
    found = re.findall(r"ablation=(\S+) debug=small .*seed=0,1,2", done.stdout)
    assert sorted(name.partition("/")[0] for name in found) == ["atesc", "cake"]
    for name in found:
        assert (CONF / "ablation" / f"{name}.yaml").exists(), name


def test_every_target_is_in_the_list():
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    for target in (*TABLES, "paper-small", "run", "test", "bench", "lint", "clean", "help"):
        assert f"  make {target}\t" in said
