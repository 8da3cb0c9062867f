"""`hydra/sweeper=optuna`: what it goes by, what it makes of failures, what it cannot do."""

import json
import shlex
from importlib.util import find_spec

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from runner import DFQ, TINY, command_line, read_json

pytestmark = pytest.mark.skipif(find_spec("optuna") is None, reason="needs the extra `optuna`")

SEARCH = ("-m", "hydra/sweeper=optuna", *TINY, *DFQ)
LR = "synthesizer.lr=tag(log,interval(1e-4,1e-2))"


def search(folder, *words: str):
    return command_line(*SEARCH, *words, f"outputs={folder / 'o'}")


def results(folder) -> list[dict]:
    return [read_json(file) for file in folder.glob("o/runs/*/result.json")]


def test_optuna_goes_by_the_validation_accuracy_and_a_second_time_computes_nothing(tmp_path):
    words = (LR, "student.steps=1,2", "~prior.balance", "hydra.sweeper.n_trials=3")
    done = search(tmp_path, *words)
    assert done.code == 0 and "| 1 |" in done.out, done.err
    assert "study" not in done.err
    found = results(tmp_path)
    assert len(found) == 3 and all("balance" not in result["config"]["prior"] for result in found)
    best = OmegaConf.load(tmp_path / "o" / "sweeps" / "optimization_results.yaml")
    highest = max(found, key=lambda result: result["validation"]["iacc"])
    assert best.best_value == highest["validation"]["iacc"]
    assert all(best.best_value != result["student"]["iacc"] for result in found)  # of no test score
    assert best.best_params["synthesizer.lr"] == highest["config"]["synthesizer"]["lr"]
    assert f"best validation accuracy on ID: {best.best_value:.2f} with synthesizer.lr=" in done.out
    (repeat,) = (line for line in done.out.splitlines() if line.startswith("  dfkd "))
    assert command_line(*shlex.split(repeat)[1:]).err.count("was finished before") == 1
    again = search(tmp_path, *words)
    assert again.code == 0 and again.err.count("was finished before") == 3 and len(results(tmp_path)) == 3


def test_a_failed_trial_is_listed_and_the_search_goes_on(tmp_path):
    done = search(tmp_path, LR, "student.steps=0,1", "hydra.sweeper.n_trials=4")
    failed = done.out.count("retry: dfkd")
    assert done.code == 1 and 0 < failed < 4 and len(results(tmp_path)) == 4 - failed
    assert f"{failed} of 4 cells failed" in done.out and "best validation accuracy" in done.out


@pytest.mark.parametrize(("words", "failed"), [([], 2), (["fail_fast=true"], 1)])
def test_a_search_that_only_fails_says_so(tmp_path, words, failed):
    done = search(tmp_path, LR, "student.steps=0", "hydra.sweeper.n_trials=2", *words)
    assert done.code == 1 and f"{failed} of {failed} cells failed" in done.out and "best" not in done.out
    assert "Traceback" not in done.err


def test_the_axes_of_a_preset_are_searched(tmp_path):
    sweep = ("-m", "hydra/sweeper=optuna", "ablation=cake/components", "debug=small", "hydra.sweeper.n_trials=1")
    fast = [f"+limit.{name}=1" for name in ("rounds", "epochs", "steps", "checks")]
    fast += ["+limit.images=20", "tracker=files", "runtime.device=cpu"]
    done = command_line(*sweep, *fast, f"outputs={tmp_path / 'o'}")
    assert done.code == 0, done.err
    (ended,) = (tmp_path / "o" / "sweeps").glob("*.jsonl")
    keys = {word.partition("=")[0] for word in json.loads(ended.read_text())["arguments"]}
    assert {"experiment", "synthesizer.contrast_weight", "noise", "prior"} <= keys


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to search: give an axis"),
        ([LR, "seed=0,1"], "seed=0,1: a search over seeds finds the luckiest one"),
        ([LR, "dry_run=true"], "a search chooses its cells by the results of others"),
        ([LR, "until=premise"], "until=premise trains no student"),
        ([LR, "student.replicas=2"], "leave out student.replicas"),
        ([LR, "student.stesp=2"], "there is no 'student.stesp'; did you mean 'steps'?"),
        (["synthesizer.batch_size=interval(1,two)"], "interval"),
        (["defense=glob(*)"], "defense=glob(*): an axis of a search is a,b,c"),
        ([LR, "debug=small"], "debug=small is the size of an ablation"),
    ],
)
def test_what_a_search_cannot_be_is_told_before_it_begins(tmp_path, words, said):
    done = search(tmp_path, *words)
    assert done.code == 1 and said in done.err and done.err.count("dfkd: ") == 1
    assert not (tmp_path / "o").exists()


def test_without_the_extra_one_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["sweeper"], "sampler")
    done = search(tmp_path, LR)
    assert done.code == 1 and done.err == "dfkd: hydra/sweeper=optuna needs an extra: pip install 'dfkd[optuna]'\n"
