"""Every option composes and binds, every experiment on built-in data runs."""

import pytest
import torch
from runner import DFQ, a_few, composed

from dfkd.config.build import Builder
from dfkd.config.cell import GROUPS, Cell
from dfkd.main import CONF
from dfkd.stages.checks import CONTEXT

EXPERIMENTS = sorted(
    str(file.relative_to(CONF / "experiment").with_suffix("")) for file in (CONF / "experiment").rglob("*.yaml")
)
# What an option cannot know by itself.
NEEDED = {
    "ntl_scenario.id.path": "mine",
    "ntl_scenario.trigger.path": "mine.png",
    "teacher.path": "weights.pt",
    "teacher.mean": "[0.5]",
    "teacher.std": "[0.5]",
    "prior.mean_image.path": "mean.png",
}
# Where the options of a folder go.
PLACES = {
    "domain": ["domain@ntl_scenario.id={}"],
    "loss": ["loss@student.loss={}"],
    "network": ["network@teacher.network={}"],
    "generator": ["generator@synthesizer.generator={}"],
    "trigger": ["ntl_scenario=backdoor", "trigger@ntl_scenario.trigger={}"],
    "criterion": ["defense=atesc", "criterion@defense.criterion={}"],
    "scouts": ["defense=escape", "scouts@defense.scouts={}"],
    "recipe": ["recipe@teacher.recipe={}"],
}


def options() -> list[tuple[str, str]]:
    files = (file.relative_to(CONF) for file in CONF.rglob("*.yaml") if file.parent != CONF)
    names = ((file.parts[0], "/".join(file.with_suffix("").parts[1:])) for file in files)
    return sorted((group, name) for group, name in names if group not in ("experiment", "debug", "ablation", "hydra"))


def bind(cell: Cell) -> None:
    builder = Builder(**dict.fromkeys(CONTEXT, ...))
    for group in (*GROUPS, "tracker"):
        builder.bind(cell.config[group], group)
    assert builder.problems == []


def with_needed(*overrides: str) -> Cell:
    """A cell, with something under every key that only a user can fill."""
    from omegaconf import OmegaConf

    cfg = composed(*overrides)
    for key, value in NEEDED.items():
        if OmegaConf.select(cfg, key.rpartition(".")[0]) and OmegaConf.is_missing(
            OmegaConf.select(cfg, key.rpartition(".")[0]), key.rpartition(".")[2]
        ):
            OmegaConf.update(cfg, key, value if not value.startswith("[") else [0.5])
    return Cell(cfg)


@pytest.mark.parametrize(("group", "option"), options())
def test_every_option_composes_and_binds(group, option):
    bind(with_needed(*(text.format(option) for text in PLACES.get(group, [f"{group}={{}}"]))))


NETWORKS = [name for group, name in options() if group == "network"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.exhaustive) if n == "resnet50" else n for n in NETWORKS]
)
def test_every_network_builds_for_its_images(name):
    node = composed(f"network@teacher.network={name}").teacher.network
    from omegaconf import OmegaConf

    builder = Builder(shape=(3, 32, 32), classes=7)
    network = builder.build(OmegaConf.to_container(node, resolve=True), "network")
    assert builder.problems == []
    with torch.no_grad():
        assert network.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_binds(name):
    bind(with_needed(f"experiment={name}"))


PAIRS = {
    "mnist_usps": ("close_set", "mnist", "usps", 1),
    "mnist_mnistm": ("close_set", "mnist", "mnistm", 3),
    "svhn_mnistm": ("close_set", "svhn", "mnistm", 3),
    "cifar10_stl10": ("close_set", "cifar10", "stl10_as_cifar10", 3),
    "cifar10_digits": ("open_set", "cifar10", "mnist", 3),
    "svhn_cifar10": ("open_set", "svhn", "cifar10", 3),
    "mnist_fashion": ("open_set", "mnist", "fashion_mnist", 1),
    "digits_textures": ("open_set", "digits", "textures", 3),
}


def test_every_pair_is_listed():
    assert {f"pair/{name}" for name in PAIRS} == {name for name in EXPERIMENTS if name.startswith("pair/")}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_brings_its_domains_to_one_shape(name):
    kind, id, ood, channels = PAIRS[name]
    config = with_needed(f"experiment=pair/{name}").config
    scenario, data = config["ntl_scenario"], config["data"]
    assert (scenario["name"], scenario["id"]["name"], scenario["ood"]["name"]) == (kind, id, ood)
    assert config["teacher"]["name"] == "ntl"
    assert (data["size"], data["channels"]) == (16 if name == "digits_textures" else 32, channels)


def targets(node: object) -> set[str]:
    """Every `_target_` of a configuration."""
    if isinstance(node, list):
        return set().union(*map(targets, node))
    if not isinstance(node, dict):
        return set()
    return {node.get("_target_", "")} | set().union(*(targets(value) for value in node.values()))


@pytest.mark.parametrize(
    "name", a_few(EXPERIMENTS, "quickstart", "cake/digits", "cake/two_moons", "fast/digits", "matrix/open_set")
)
def test_every_experiment_on_built_in_data_runs(name, tmp_path):
    small = DFQ if name.startswith("pair/") else ()  # a pair leaves the synthesizer at its full size
    cell = with_needed(f"experiment={name}", "debug=smoke", "runtime.threads=1", f"outputs={tmp_path}", *small)
    files = {"vision", "npz", "image_folder"} & {target.rpartition(".")[2] for target in targets(cell.config)}
    if files or cell.config["teacher"]["name"] == "checkpoint":
        pytest.skip(f"needs files: {', '.join(sorted(files))}")
    from dfkd.run.run_cell import run_cell

    result = run_cell(cell)
    judged = result["teacher" if cell.config["until"] in ("premise", "audit") else "student"]
    assert result["hash"] == cell.hash and 0 <= judged["iacc"] <= 100
