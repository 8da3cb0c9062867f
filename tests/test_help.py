"""`dfkd --help`: complete, short, quick."""

import subprocess
import sys

import pytest
from runner import ROOT, process_environment, write_component

from dfkd.cli.help import GROUPS, help_text
from dfkd.main import CONF

FOLDERS = sorted(p.name for p in CONF.iterdir() if p.is_dir() and p.name != "hydra")


def lines(*arguments: str) -> list[str]:
    return help_text(CONF, list(arguments)).splitlines()


def test_the_seven_groups_are_named_with_one_line_each():
    wanted = {"teacher", "student", "synthesizer", "prior", "noise", "ntl_scenario", "defense"}
    assert set(GROUPS) == wanted
    for group, about in GROUPS.items():
        assert [line.split(maxsplit=1)[1] for line in lines() if line.split()[:1] == [group]] == [about]


def test_every_launcher_is_named():
    for file in (CONF / "hydra" / "launcher").iterdir():
        assert any(f"hydra/launcher={file.stem}" in line for line in lines())


def test_there_are_three_examples():
    examples = [line for line in lines() if line.startswith("  dfkd ")]
    assert len(examples) == 3 and all("experiment=" in e or "defense=" in e for e in examples)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_option_of_every_folder_is_named(folder):
    words = {word.strip(",") for line in lines() for word in line.replace("=", " ").split()}
    assert folder in words
    for file in (CONF / folder).rglob("*.yaml"):
        assert str(file.relative_to(CONF / folder).with_suffix("")) in words


@pytest.mark.parametrize("how", ["--config-dir {}", "--config-dir={}", "-cd {}"])
def test_options_of_ones_own_are_listed(tmp_path, how):
    write_component(tmp_path, "mine", "", synthesizer__mine="name: mine\n")
    said = "\n".join(lines("--help", *how.format(tmp_path / "options").split()))
    assert "mine" in said and "mine" not in "\n".join(lines("--help"))


def test_help_imports_no_torch():
    code = "import sys\nfrom dfkd.main import cli\ncli()\nassert 'torch' not in sys.modules, 'torch was imported'"
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, env=process_environment(), capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and "ntl_scenario" in done.stdout


def test_python_m_dfkd_is_the_same():
    done = subprocess.run(
        [sys.executable, "-m", "dfkd", "-h"], cwd=ROOT, env=process_environment(), capture_output=True, text=True
    )
    assert done.stdout == help_text(CONF, ["-h"]) + "\n"
