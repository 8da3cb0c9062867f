"""Ablations and tables: what their files open with, all their cells in both sizes, one of them from end to end."""

import functools
import math
import re
from unittest import mock

import pytest
import shipped
import yaml
from runner import a_few, command_line, read_json
from test_experiments import EXPERIMENTS

from dfkd.config import paper
from dfkd.config.cell import Cell
from dfkd.config.lookup import as_typed, matches, option
from dfkd.main import CONF
from dfkd.stages.checks import check_names
from dfkd.stages.prepare import prepare

EVERY = sorted(str(file.relative_to(CONF / "ablation").with_suffix("")) for file in CONF.glob("ablation/**/*.yaml"))
ABLATIONS = [name for name in EVERY if not name.startswith("study/")]
STUDIES = [name.removeprefix("study/") for name in EVERY if name.startswith("study/")]
ROWS = [name for name in EXPERIMENTS if re.search(r"/cifar\w+$", name) and not re.match(r"base/|pair/", name)]
SHORTER = {"dfkd/cifar10": ["networks=resnet34_resnet18"], "dfkd/cifar100": ["networks=wrn_40_2_wrn_16_2"]}


def head(file: str) -> dict[str, str]:
    """What a preset opens with, by the word before the colon."""
    lines = (CONF / f"{file}.yaml").read_text().splitlines()
    said = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    parts = re.split(r"(Reproduces|Published|CPU cost|Cost|Command|CPU size|Paper size): ", said)[1:]
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


@functools.cache
def cells(*words: str) -> list[Cell]:
    """The cells of a sweep, composed and checked, none started."""
    found = []

    def stop(listed: list) -> None:
        found.extend(cell for job in listed for cell, *_ in job)
        raise SystemExit(0)

    with mock.patch("dfkd.sweeps.ledger.announce", stop):
        done = command_line("-m", *words)
    assert done.code == 0, done.err
    return found


def axes(name: str) -> tuple[dict, dict]:
    """The axes of an ablation in paper and in small size, {key: values}."""
    sweeper = yaml.safe_load((CONF / "ablation" / f"{name}.yaml").read_text())["hydra"]["sweeper"]
    split = ({key: str(values).split(",") for key, values in sweeper[size].items()} for size in ("params", "small"))
    return tuple(split)


@pytest.mark.parametrize(
    "file", [*(f"ablation/{name}" for name in ABLATIONS), *(f"experiment/{name}" for name in ROWS)]
)
def test_a_preset_says_what_it_reproduces_what_was_published_its_cost_and_its_command(file):
    said = head(file)
    group, _, name = file.partition("/")
    assert said["Reproduces"] and re.search(r"\d|GPU", said["Cost"])
    number, trust = re.search(r"\d", said["Published"]), re.search(r"trust (low|medium|high)", said["Published"])
    assert (number and trust) or re.search(r"^none|unknown to us", said["Published"])
    assert re.match(rf"dfkd .*{group}={name} ", said["Command"] + " ")
    if group == "ablation":
        assert said["Command"].startswith("dfkd -m ") and f"ablation={name} debug=small" in said["CPU size"]
        assert re.search(r"\d+ cells .* \d+ minutes on 2 cores", said["CPU cost"])
    else:
        (other,) = re.findall(r"experiment=(\S+)", said.get("CPU size") or said["Paper size"])
        assert other in EXPERIMENTS


@pytest.mark.parametrize("name", a_few(ABLATIONS, "atesc/backdoor", "cake/components", "dfkd/cifar10"))
def test_every_cell_in_paper_size_is_right(name):
    found = cells(f"ablation={name}", *SHORTER.get(name, []))
    assert len(found) > 1
    assert not [cell.name for cell in found if cell.config["ntl_scenario"]["id"]["name"] == "digits"]


@pytest.mark.parametrize("name", a_few(ABLATIONS, "atesc/backdoor", "cake/components", "dfkd/cifar10"))
def test_every_cell_in_small_size_fits_together_on_built_in_data(tmp_path, name):
    seeds = 1 if name.startswith("dfkd/") else 3
    count = seeds * math.prod(map(len, axes(name)[1].values()))
    assert head(f"ablation/{name}")["CPU cost"].startswith(f"{count} cells")
    found = cells(
        f"ablation={name}", "debug=small", f"outputs={tmp_path}", *(["networks=cnn_bn_cnn_bn"] * (seeds == 1))
    )
    for cell in found:
        assert cell.config["ntl_scenario"]["id"]["name"] == "digits"
        assert paper.published([mock.Mock(config=cell.config)], "student.iacc") is None, "a number of other data"
    for cell in {(c.config["synthesizer"]["name"], c.config["defense"]["name"]): c for c in found}.values():
        prepare(cell)


@pytest.mark.parametrize("name", a_few(STUDIES, "halves", "queries_paper"))
def test_every_cell_of_a_study_is_right_and_as_many_as_its_file_says(name, tmp_path):
    said, found = head(f"ablation/study/{name}"), cells(f"ablation=study/{name}", f"outputs={tmp_path}")
    assert said["Cost"].startswith(f"{len(found)} cells") and len({cell.hash for cell in found}) == len(found)
    assert said["Command"].startswith(f"dfkd -m ablation=study/{name}")
    domains = {cell.config["ntl_scenario"]["id"]["name"] for cell in found}
    if name.endswith("_paper"):
        assert "digits" not in domains
        return
    assert said["Paper size"] and domains <= {"digits", "two_moons", "circles", "checkerboard", "docstrings"}
    for cell in {(c.config["synthesizer"]["name"], c.config["defense"]["name"]): c for c in found}.values():
        prepare(cell)


@pytest.mark.parametrize("name", ["dfkd/cifar10", "dfkd/cifar100"])
def test_a_table_has_every_synthesizer_and_pair_of_networks(name):
    paper_size, small = axes(name)
    methods = [method for method in shipped.options("synthesizer") if not re.match(r"cake_(?!generator)|dafl_", method)]
    for found in (paper_size, small):
        assert sorted({method.partition("/")[0] for method in found["experiment"]}) == methods
    assert len(paper_size["networks"]) == 5


@pytest.mark.parametrize("table", a_few(paper.tables(), "atesc", "cifar10"))
def test_every_published_number_stands_beside_a_cell(table):
    ablations = [name for name in ABLATIONS if f"\npaper: {table}\n" in (CONF / f"ablation/{name}.yaml").read_text()]
    ablations += ["cake/weights"] if table == "cifar10" else []  # from its experiment
    configs = [cell.config for name in ablations for cell in cells(f"ablation={name}", *SHORTER.get(name, []))]
    shortened = ("teacher.network", "student.network") if table.startswith("cifar") else ()
    for entry in paper.entries({"paper": table}):
        when = {key: value for key, value in entry["when"].items() if key not in shortened}
        fits = (all(matches(as_typed(value), option(config, key)) for key, value in when.items()) for config in configs)
        assert any(fits), entry
        if pair := [entry["when"][key] for key in shortened if key in entry["when"]]:
            assert any("_".join(pair) in networks for networks in axes(f"dfkd/{table}")[0]["networks"]), entry


@pytest.mark.parametrize("name", a_few(["cake/components", "atesc/backdoor"], "atesc/backdoor"))
def test_a_small_cell_runs_from_end_to_end(tmp_path, name):
    tiny = ["+limit.epochs=1", "+limit.rounds=2", "+limit.steps=2", "tracker=files", "evaluate.premise.images=20"]
    axis = {"cake/components": ["noise=constant", "prior=none", "synthesizer.contrast_weight=10"]}
    words = [f"ablation={name}", "debug=small", *axis.get(name, ["defense=atesc"]), *tiny, f"outputs={tmp_path}"]
    done = command_line("-m", *words)
    assert done.code == 0, done.err + done.out
    (result,) = (read_json(file) for file in tmp_path.glob("runs/*/result.json"))
    assert result["config"]["runtime"]["threads"] == 1 and 0 <= result["student"]["iacc"] <= 100


def test_one_cell_of_an_ablation_has_to_say_which(tmp_path):
    done = command_line("ablation=cake/noise", "noise=langevin", f"outputs={tmp_path}")
    assert done.code == 1 and not list(tmp_path.iterdir())
    assert "ablation=cake/noise is many cells: dfkd -m ablation=cake/noise ...; for one, set noise.eps" in done.err


def test_one_cell_of_several_grids_has_to_set_what_the_nearest_of_them_lacks(tmp_path):
    words = ["ablation=study/queries", "seed=0", "runtime.threads=1", "runtime.precision=float32"]
    done = command_line(*words, "experiment=cake/digits", f"outputs={tmp_path}")
    assert done.code == 1 and done.err.endswith("for one, set synthesizer.rounds\n") and not list(tmp_path.iterdir())


def test_a_preset_of_several_grids_is_their_union_and_the_command_line_replaces_an_axis_of_all(tmp_path):
    found = cells("ablation=study/criteria", "experiment=matrix/backdoor", "seed=7", f"outputs={tmp_path}")
    names = [(c.config["defense"]["name"], c.config["defense"].get("criterion", {}).get("name")) for c in found]
    assert len(names) == 9 and names[0] == ("none", None) and names[-1] == ("atesc", "random")
    assert {c.config["seed"] for c in found} == {7}
    criterion = found[-1].config["defense"]["criterion"]["of"]
    assert (criterion["name"], criterion["quantile"]) == ("pgd", 0.5)


def test_a_grid_can_be_left_out(tmp_path):
    words = ["ablation=study/criteria", "experiment=matrix/backdoor", "seed=7", f"outputs={tmp_path}"]
    assert len(cells(*words, "~hydra.sweeper.grids.by_score")) == 2


def test_a_search_has_no_grids(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra `optuna`")
    words = ["ablation=study/parts", "hydra/sweeper=optuna", "synthesizer.steps=1,2", f"outputs={tmp_path}"]
    done = command_line("-m", *words)
    assert done.code == 1 and "searches one grid, and this preset is several (on_and_off" in done.err


def test_a_single_run_has_no_small_size(tmp_path):
    done = command_line("experiment=cake/cifar10", "debug=small", f"outputs={tmp_path}")
    assert done.code == 1 and not list(tmp_path.iterdir())
    assert "debug=small is the size of an ablation that fits a CPU: dfkd -m ablation=" in done.err


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("experiment=dqf/digits", "experiment has no option 'dqf/digits'; did you mean 'dfq/digits'?"),
        ("experiment=cake/digts", "experiment/cake has no option 'digts'; did you mean 'digits'?"),
    ],
)
def test_a_misspelt_experiment_or_folder_of_experiments_is_told_the_nearest(word, said):
    assert said in command_line(word).err


def test_the_options_that_are_listed_are_those_of_the_folder():
    assert command_line("experiment=cake/digts").err.count("quickstart") == 0
    assert command_line("hydra/sweeper=nonsense").err.count("optuna") == 1


@pytest.mark.parametrize("more", [[], ["-m"]])
def test_a_misspelt_ablation_is_told_the_nearest(more):
    done = command_line(*more, "ablation=cake/component")
    assert done.code == 1 and "ablation has no option 'cake/component'; did you mean 'cake/components'?" in done.err


def test_a_transformer_is_trained_with_adam_whatever_the_recipe_of_an_experiment():
    (cell,) = cells("experiment=fast/digits", "networks=cnn_bn_vit")  # whose student has SGD with 0.1
    recipe = cell.config["student"]["recipe"]
    assert (recipe["optimizer"], recipe["lr"], recipe["batch_size"]) == ("adam", 1e-3, 64)
    (cell,) = cells("experiment=fast/digits", "networks=vit_cnn_bn")
    assert cell.config["teacher"]["recipe"]["optimizer"] == "adam" and cell.config["student"]["recipe"]["lr"] == 0.1


def test_networks_chosen_together_go_before_those_of_an_experiment():
    (cell,) = cells("experiment=cake/cifar10", "networks=wrn_40_2_wrn_16_1")
    assert [cell.config[part]["network"]["name"] for part in ("teacher", "student")] == ["wrn_40_2", "wrn_16_1"]
    assert check_names(cell.config).problems == []
