"""What pyproject.toml promises is what is tested: every lower bound is installed by `make test-oldest`."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from runner import ROOT

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "tests" / "constraints-oldest.txt").read_text(), re.M))


def requirements() -> dict[str, Requirement]:
    """Everything that is installed directly, by name."""
    texts = [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]
    found = [Requirement(text) for text in texts]
    return {requirement.name: requirement for requirement in found if requirement.name != "dfkd"}


def test_the_oldest_set_is_of_the_lower_bounds():
    bounds = {
        name: next(Version(part.version) for part in requirement.specifier if part.operator == ">=")
        for name, requirement in requirements().items()
    }
    assert {name: Version(pin) for name, pin in PINS.items()} == bounds


def test_the_makefile_and_the_readme_name_the_oldest_python():
    oldest = re.fullmatch(r">=(\d+\.\d+)", PROJECT["requires-python"])[1]
    assert f"python{oldest} -c" in (ROOT / "Makefile").read_text()
    assert f"Python {oldest}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_the_gpu_box_is_in_the_range(name):
    assert {"torch": "2.11.0", "torchvision": "0.26.0"}[name] in requirements()[name].specifier
