"""The short CIFAR-10 presets and those of a CPU: in sizes of one file each; planned, and run at toy size."""

import re

import pytest
import shipped
from runner import a_few, command_line, composed

from dfkd.config.cell import Cell
from dfkd.main import CONF

SHORT = sorted(file.parent.name for file in CONF.glob("experiment/*/cifar10_short.yaml"))
OF_A_CPU = sorted(file.parent.name for file in CONF.glob("experiment/*/cifar10_cpu.yaml"))
PRESETS = [f"{name}/cifar10_{size}" for size, names in (("short", SHORT), ("cpu", OF_A_CPU)) for name in names]
FEW = "cake/cifar10_short", "fast/cifar10_short", "nayer/cifar10_cpu", "noise_images/cifar10_cpu"
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


def test_those_of_a_cpu_have_the_sizes_that_are_used():
    assert set(composed("experiment=fast/cifar10_cpu").sizes) == set(OF_A_CPU)


@pytest.mark.parametrize("preset", a_few(PRESETS, *FEW))
def test_a_preset_takes_its_sizes_from_the_one_file_and_is_smaller_than_the_whole(preset):
    name = preset.split("/")[0]
    small, whole = (Cell(composed(f"experiment={one}")).config for one in (preset, f"{name}/cifar10"))
    for option, size in small["sizes"][name].items():
        section = "synthesizer" if option in small["synthesizer"] else "student"
        assert small[section][option] == size
        assert option in ("warm_up_renewal", "epochs") or size <= whole[section][option]
    assert small["teacher"]["name"] == "supervised_fast" and small["paper"] is None


def test_sizes_count_only_where_they_are_used():
    plain, other = (Cell(composed("experiment=fast/cifar10_short", *more)) for more in ([], ["sizes.dfq.rounds=7"]))
    changed = Cell(composed("experiment=fast/cifar10_short", "sizes.fast.rounds=70"))
    assert plain.hash == other.hash != changed.hash and changed.config["synthesizer"]["rounds"] == 70


@pytest.mark.parametrize("size, names", [("short", SHORT), ("cpu", OF_A_CPU)])
def test_all_of_a_size_are_planned_with_one_teacher(tmp_path, size, names):
    presets = ",".join(f"{name}/cifar10_{size}" for name in names)
    done = command_line("-m", f"experiment={presets}", *TOY, "dry_run=true", f"outputs={tmp_path}")
    assert done.code == 0, done.err + done.out
    said = done.out + done.err
    assert all(re.search(rf"_{name}-cnn_bn_none_s0", said) for name in names)
    assert not list(tmp_path.glob("runs/*")) and len(set(re.findall(r"teacher +([0-9a-f]{16})", said))) == 1


@pytest.mark.parametrize("preset", a_few(PRESETS, "fast/cifar10_short", "nayer/cifar10_cpu"))
def test_a_preset_runs_at_toy_size(tmp_path, preset):
    from dfkd.run.run_cell import run_cell

    result = run_cell(Cell(composed(f"experiment={preset}", *TOY, f"outputs={tmp_path}")))
    assert 0 <= result["student"]["iacc"] <= 100
