"""The short CIFAR-10 presets: every synthesizer has one, in sizes of one file; planned, and run at toy size."""

import re

import pytest
import shipped
from runner import a_few, command_line, composed

from dfkd.config.cell import Cell
from dfkd.main import CONF

SHORT = sorted(file.parent.name for file in CONF.glob("experiment/*/cifar10_short.yaml"))
# Built-in images and small networks in the place of CIFAR-10 and its networks.
TOY = (
    *("domain@ntl_scenario.id=digits", "data.size=16", "data.channels=3", "data.limit=200", "networks=cnn_bn_cnn_bn"),
    *("debug=smoke", "+limit.batch_size=20", "+limit.images=40", "+limit.width=8", "+limit.noise=8"),
    *("runtime.device=cpu", "runtime.precision=float32", "runtime.threads=1"),
)


def test_every_synthesizer_with_a_cifar_preset_has_a_short_one():
    full = {file.parent.name for file in CONF.glob("experiment/*/cifar10.yaml")} - {"base"}
    assert set(SHORT) == full
    assert set(composed("experiment=fast/cifar10_short").sizes) == full & set(shipped.options("synthesizer"))


@pytest.mark.parametrize("name", a_few(SHORT, "cake", "fast", "nayer"))
def test_a_short_preset_takes_its_sizes_from_the_one_file_and_is_smaller_than_the_whole(name):
    short, whole = (Cell(composed(f"experiment={name}/cifar10{end}")).config for end in ("_short", ""))
    for option, size in short["sizes"][name].items():
        section = "synthesizer" if option in short["synthesizer"] else "student"
        assert short[section][option] == size
        assert option in ("warm_up_renewal", "epochs") or size <= whole[section][option]
    assert short["teacher"]["name"] == "supervised_fast" and short["paper"] is None


def test_sizes_count_only_where_they_are_used():
    plain, other = (Cell(composed("experiment=fast/cifar10_short", *more)) for more in ([], ["sizes.dfq.rounds=7"]))
    changed = Cell(composed("experiment=fast/cifar10_short", "sizes.fast.rounds=70"))
    assert plain.hash == other.hash != changed.hash and changed.config["synthesizer"]["rounds"] == 70


def test_all_are_planned_with_one_teacher(tmp_path):
    names = ",".join(f"{name}/cifar10_short" for name in SHORT)
    done = command_line("-m", f"experiment={names}", *TOY, "dry_run=true", f"outputs={tmp_path}")
    assert done.code == 0, done.err + done.out
    said = done.out + done.err
    assert all(re.search(rf"_{name}-cnn_bn_none_s0", said) for name in SHORT)
    assert not list(tmp_path.glob("runs/*")) and len(set(re.findall(r"teacher +([0-9a-f]{16})", said))) == 1


@pytest.mark.parametrize("name", a_few(SHORT, "fast"))
def test_a_short_preset_runs_at_toy_size(tmp_path, name):
    from dfkd.run.run_cell import run_cell

    result = run_cell(Cell(composed(f"experiment={name}/cifar10_short", *TOY, f"outputs={tmp_path}")))
    assert 0 <= result["student"]["iacc"] <= 100
