"""The user's own modules are found without executing them, and told by their bytes."""

import subprocess
import sys
from pathlib import Path

import pytest

from dfkd.config import own_code as module
from dfkd.config.own_code import code_digest, digest_of, own_code


def digest(name: str) -> str:
    return digest_of(own_code(name))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of modules; each would say so if it was executed."""
    files = {
        "own_method.py": "import own_helper, torch, json\nfrom own_package.deep import tool\n1 / 0\n",
        "own_helper.py": "1 / 0\n",
        "own_package/__init__.py": "from . import other\n1 / 0\n",
        "own_package/other.py": "def f():\n    from .deep.tool import x\n",
        "own_package/deep/__init__.py": "from ..sibling import y\n",
        "own_package/deep/tool.py": "x = 1\n",
        "own_package/sibling.py": "y = 1\n",
        "own_package/unused.py": "",
        "own_wrong.py": "def (",
        "unrelated.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(module, "_seen", {})
    return tmp_path


def test_a_module_stands_on_the_own_modules_that_it_imports(folder):
    names = {
        "own_method",
        "own_helper",
        "own_package",
        "own_package.other",
        "own_package.deep",
        "own_package.deep.tool",
    }
    assert own_code("own_method").keys() == names | {"own_package.sibling"}
    assert own_code("own_package.sibling").keys() == names - {"own_method", "own_helper"} | {"own_package.sibling"}
    assert own_code("own_wrong").keys() == {"own_wrong"}


@pytest.mark.parametrize("name", ["dfkd.priors", "torch.nn", "json", "own_missing", "own_missing.deep", ""])
def test_shipped_installed_and_missing_modules_are_not_own(folder, name):
    assert own_code(name) == {} and digest(name) == ""


def test_what_pip_has_put_into_a_folder_is_not_own(folder, monkeypatch):
    (folder / "own_helper-1.0.dist-info").mkdir()
    module._has_packages.cache_clear()
    assert own_code("own_helper") == {}
    module._has_packages.cache_clear()


@pytest.mark.parametrize("name", ["own_method.py", "own_helper.py", "own_package/deep/tool.py"])
def test_an_edit_counts(folder, name):
    before, text = digest("own_method"), (folder / name).read_text()
    assert digest("own_method") == before
    (folder / name).write_text(text + "# a comment too\n")
    assert digest("own_method") != before
    (folder / name).write_text(text)
    assert digest("own_method") == before


def test_an_edit_elsewhere_and_another_place_count_nothing(folder, monkeypatch):
    before = digest("own_method")
    (folder / "unrelated.py").write_text("a = 1\n")
    monkeypatch.syspath_prepend(str(folder.rename(folder.with_name("moved"))))
    assert digest("own_method") == before


def test_two_modules_that_change_places_count(folder):
    before = digest("own_package")
    (folder / "own_package" / "sibling.py").write_text("x = 1\n")
    (folder / "own_package" / "deep" / "tool.py").write_text("y = 1\n")
    assert digest("own_package") != before


def test_what_is_edited_after_its_import_counts_for_the_next_process(folder, monkeypatch):
    before = digest("unrelated")
    monkeypatch.setitem(sys.modules, "unrelated", "imported")
    (folder / "unrelated.py").write_text("a = 1\n")
    assert digest("unrelated") == before
    monkeypatch.setattr(module, "_seen", {})
    assert digest("unrelated") != before


def test_the_program_is_told_by_the_modules_it_is_made_of(folder):
    config = {"synthesizer": {"_target_": "own_helper.Mine"}, "prior": [{"_target_": "dfkd.priors.L2"}]}
    before = code_digest(config)
    assert before == code_digest(config) != code_digest({})
    (folder / "own_helper.py").write_text("a = 2\n")
    assert code_digest(config) != before


def test_it_is_found_without_torch(folder):
    code = "from dfkd.config.own_code import own_code; import sys; assert own_code('own_method'); "
    code += "assert not {'torch', 'own_method', 'own_package'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(folder)}, check=True, timeout=60)
