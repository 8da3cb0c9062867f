"""Variables of the environment that end a run late, or without a word. Whole commands: tests/test_other_machines.py."""

import importlib.util
import io
import os
import sys
import warnings

import matplotlib
import pytest

from dfkd.errors import ConfigError
from dfkd.machine.environment import prepare_environment


def test_pictures_do_not_need_the_backend_of_a_notebook(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    prepare_environment()
    assert os.environ["MPLBACKEND"] == "agg"


@pytest.mark.parametrize("module", ["dfkd.stages.run_figures", "dfkd.report.figures"])
def test_pictures_do_not_follow_a_users_matplotlibrc(module):
    with matplotlib.rc_context({"text.usetex": True, "font.family": "none"}):
        spec = importlib.util.find_spec(module)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))  # not the one that other tests use
        assert matplotlib.rcParams["text.usetex"] is False


def test_a_terminal_without_a_sign_shows_another(monkeypatch):
    there = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(there, encoding="ascii"))
    prepare_environment()
    print("90.0 ± 0.5", flush=True)
    assert there.getvalue() == b"90.0 ? 0.5\n"


@pytest.mark.parametrize(
    ("name", "odd", "right"),
    [
        ("PYTORCH_CUDA_ALLOC_CONF", "garbage", "expandable_segments:True,roundup_power2_divisions:[256:1,>:8]"),
        ("TQDM_NCOLS", "wide", "80"),
        ("TQDM_MININTERVAL", "1s", "0.5"),
    ],
)
def test_what_a_library_cannot_read_is_named(monkeypatch, name, odd, right):
    for value in ("", right):
        monkeypatch.setenv(name, value)
        prepare_environment()
    monkeypatch.setenv(name, odd)
    with pytest.raises(ConfigError, match=f"environment variable {name} must be .*, got '{odd}'"):
        prepare_environment()


def test_only_our_own_warnings_become_errors(monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("error")
        prepare_environment()
        warnings.warn_explicit("old", DeprecationWarning, "jit.py", 1, module="torch.jit")
        with pytest.raises(DeprecationWarning, match="ours"):
            warnings.warn_explicit("ours", DeprecationWarning, "main.py", 1, module="dfkd.main")
    assert [str(warning.message) for warning in said] == ["old"] and "PYTHONWARNINGS" not in os.environ
