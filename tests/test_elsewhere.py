"""Runs on a device that is not the CPU: nothing of them may lie on the wrong one (`tests.elsewhere`)."""

import pytest
import torch
from elsewhere import ELSEWHERE, Mixed, elsewhere
from runner import BACKDOOR, CAKE, DFQ, NOISE, a_few, make_cell

from dfkd.run.run_cell import run_cell

SYNTHESIZERS = (
    *("adaptive_deepinversion", "cake_generator", "cmi", "dafl", "deepinversion", "dfad", "dfq", "fast", "mad"),
    *("nayer", "zskt"),
)
SMALL = ("runtime.checkpoint_every=null", "++limit.width=8", "++limit.batch_size=32", "data.limit=200")
HOST = ("runtime.pool=host",)
CELLS = {
    **{name: (f"synthesizer={name}",) for name in SYNTHESIZERS},
    "cake": (*CAKE, "noise=langevin"),
    "points": (
        *("synthesizer=cake_2d", "domain@ntl_scenario.id=two_moons"),
        *("network@teacher.network=mlp", "network@student.network=mlp"),
    ),
    "conditional": ("synthesizer=dfq", "generator@synthesizer.generator=resnet_cbn"),
    "augmented": (*NOISE, "teacher.augment=crop_flip", "student.augment=cut_mix"),
    **{
        name: (*NOISE, "ntl_scenario=close_set", f"teacher={name}")
        for name in ("ntl", "cuti", "cupi", "hntl", "sophon")
    },
    "open_set": (*NOISE, "ntl_scenario=open_set", "teacher=ntl"),
    "poisoned": (*NOISE, *BACKDOOR, "teacher.poison_rate=0.1"),
    "atesc": ("synthesizer=dfq", *DFQ, *BACKDOOR, "defense=atesc"),
    "atesc_fast": ("synthesizer=dfq", *DFQ, *BACKDOOR, "defense=atesc_fast", "defense.criterion.memory=32"),
    "atesc_pool": (*CAKE, *BACKDOOR, "defense=atesc_random"),
    "abd": ("synthesizer=dfq", *DFQ, *BACKDOOR, "defense=abd"),
    "dhbe": ("synthesizer=dfq", *DFQ, *BACKDOOR, "defense=dhbe", "defense.every=2"),
    **{
        name: (*NOISE, *BACKDOOR, "defense=atesc", f"criterion@defense.criterion={name}")
        for name in ("entropy", "feature_distance", "oracle")
    },
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """One store for all: what they share is made once."""
    return tmp_path_factory.mktemp("elsewhere")


FEW = ("cake", "points", "conditional", "augmented", "ntl", "atesc", "oracle", "fast")


@pytest.mark.parametrize("name", a_few(CELLS, *FEW))
def test_a_run_stays_on_its_device(outputs, name):
    with elsewhere():
        result = run_cell(make_cell(outputs, *CELLS[name], *SMALL))
    assert 0 <= result["student"]["iacc"] <= 100


@pytest.mark.cpu("the stand-in is compared with the CPU")
def test_the_other_device_computes_the_same(outputs, tmp_path):
    words = (*CAKE, *SMALL, "student.augment=shift")
    with elsewhere():
        there = run_cell(make_cell(outputs, *words))["student"]
    here = run_cell(make_cell(tmp_path, *words))["student"]
    assert there["agreement"] == pytest.approx(here["agreement"], abs=5)  # the layout, and so the rounding, is another


@pytest.mark.parametrize("name", a_few(["cake", "points", "augmented", "atesc_pool"], "cake"))
def test_a_pool_on_the_host_gives_the_student_of_one_on_the_device(outputs, name, tmp_path):
    words = (*CELLS[name], *SMALL)
    with elsewhere():
        near, far = (run_cell(make_cell(to, *words, *more)) for to, more in ((outputs, ()), (tmp_path, HOST)))
    assert far["student_digest"] == near["student_digest"] and not far["stages"]["pool"]["reused"]


def test_the_other_device_is_one():
    with elsewhere():
        images, layer = torch.rand(2, 3, device=ELSEWHERE), torch.nn.Linear(3, 4)
        with pytest.raises(Mixed, match=r"There\(2, 3\)"):
            layer(images)
        assert layer.to(ELSEWHERE)(images).device == ELSEWHERE
        with pytest.raises(Mixed, match="random generator"):
            torch.rand(2, device=ELSEWHERE, generator=torch.Generator())
        assert torch.tensor([1.0], device=ELSEWHERE).cpu().device == torch.device("cpu")


def test_siblings_stay_on_it_too(outputs):
    words = (*NOISE, *SMALL, *HOST, "student.augment=cut_mix", "student.replicas=2", "runtime.vectorize=true")
    first, other = (make_cell(outputs, *words, f"seeds.student={seed}") for seed in (5, 6))
    with elsewhere():
        run_cell(first, [other])
        assert run_cell(other)["stages"]["student"]["reused"]
