"""What is installed runs without the checkout: the options lie inside the package."""

import subprocess
import sys
import zipfile

import pytest
import yaml
from runner import ROOT, process_environment

pytest.importorskip("hatchling")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """A wheel of this checkout, unpacked as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder)]
    done = subprocess.run([*build, str(ROOT)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("dfkd-*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_every_module_and_every_option_is_inside(unpacked):
    for name, place in (("dfkd", "dfkd"), ("conf", "dfkd/conf"), ("hydra_plugins", "hydra_plugins")):
        source, target = ROOT / name, unpacked / place
        files = [file for suffix in ("*.py", "*.yaml", "*.css", "*.js") for file in source.rglob(suffix)]
        assert files and all((target / file.relative_to(source)).exists() for file in files)
    assert not (unpacked / "tests").exists()


def test_the_console_scripts_are_named(unpacked):
    (entries,) = unpacked.glob("dfkd-*.dist-info/entry_points.txt")
    commands = {"dfkd": "main", "dfkd-report": "report.cli", "dfkd-inspect": "cli.inspect", "dfkd-audit": "cli.audit"}
    assert {f"{name} = dfkd.{module}:cli" for name, module in commands.items()} <= set(entries.read_text().splitlines())


def test_it_runs_from_another_directory(unpacked, tmp_path):
    where = "import dfkd.main; print(dfkd.main.CONF)"
    environment = process_environment(PYTHONPATH=str(unpacked))
    python = [sys.executable, "-c", where]
    said = subprocess.run(python, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout
    assert said.strip() == str(unpacked / "dfkd" / "conf")
    command = [sys.executable, "-m", "dfkd", "experiment=quickstart", "--cfg", "job"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout)["ntl_scenario"]["name"] == "backdoor"
