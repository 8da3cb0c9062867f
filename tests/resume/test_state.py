"""What objects hold goes through a file into others of their kind; what cannot is refused by name."""

import collections
import contextlib
import itertools
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import holds
from omegaconf import OmegaConf
from runner import ROOT, composed
from torch import nn

from dfkd.config.build import Builder
from dfkd.domains import Images
from dfkd.models import cnn_bn
from dfkd.pool import Pool, Split
from dfkd.recipe import Recipe
from dfkd.resume.state import CannotSave, CheckpointMismatch, Extractor, Restorer
from dfkd.resume.statefile import read, write

CPU = torch.device("cpu")


def carried(things: dict, fresh: dict, folder: Path) -> dict:
    """Take the things, write and read what they hold, put it into the fresh ones."""
    take = Extractor()
    data = {name: take(thing, name) for name, thing in things.items()}
    write(folder / "file", {}, data)
    _, data = read(folder / "file", CPU)
    put = Restorer()
    return {name: put(fresh[name], data[name], name) for name in fresh}


def check(thing: object, fresh: object) -> None:
    """Raise CannotSave unless what `thing` holds could be put into `fresh`."""
    take, outline = Extractor(), Extractor()
    with contextlib.suppress(CannotSave):
        outline(fresh, "t")
    take(thing, "t")
    take.check(outline.outline)


class Thing:
    """Any object of a user's."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


def test_values_come_back_as_they_were(tmp_path):
    values = {
        "numbers": (1, 2.5, float("inf"), True, None, -0.0, 2**70, 1e-320),
        "words": ["", "ä\n", "{}"],
        "keys": {1: "one", "1": "word", (2, "x"): 3, None: 4, 1.5: 5, True + 1: 6},
        "sets": {1, "a", (2, 3)},
        "queue": collections.deque([1, 2], maxlen=3),
        "ordered": collections.OrderedDict(b=1, a=2),
        "counter": collections.Counter(a=2),
        "empty": [[], {}, (), set(), torch.empty(0, 3)],
        "array": np.arange(6, dtype=np.int16).reshape(2, 3).T,
        "numpy number": np.float32(0.1),
    }
    got = carried({"t": Thing(values=values)}, {"t": Thing(values=None)}, tmp_path)["t"].values
    assert repr(got) == repr(values)
    assert type(got["numpy number"]) is np.float32 and got["queue"].maxlen == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_tensors_keep_bits_kind_and_layout(tmp_path, host_random, dtype):
    dense = (100 * torch.rand(2, 3, 4, 5, generator=host_random)).to(dtype)
    tensors = [
        dense,
        dense.to(memory_format=torch.channels_last),
        dense.mT,
        dense[:1, :1].expand(7, -1, -1, -1),
        dense[1],
    ]
    for tensor in tensors:
        got = carried({"t": [tensor]}, {"t": []}, tmp_path)["t"][0]
        assert torch.equal(got, tensor) and got.dtype == dtype and got.stride() == tensor.stride()


def test_what_shares_memory_shares_it_again(tmp_path):
    whole = torch.arange(12.0)
    things = Thing(whole=whole, part=whole[4:6], table=whole.view(3, 4), names=[])
    things.alias = things.names
    got = carried({"t": things}, {"t": Thing()}, tmp_path)["t"]
    got.whole.zero_()
    got.names.append("new")
    assert got.part.tolist() == [0, 0] and got.table.sum() == 0 and got.alias == ["new"]


def test_a_file_holds_shared_memory_once(tmp_path):
    whole = torch.zeros(100_000)
    carried({"t": [whole, whole[:10], whole.view(10, -1), whole]}, {"t": []}, tmp_path)
    assert (tmp_path / "file").stat().st_size < 450_000


def test_lists_and_dicts_are_filled_in_place_and_alike_ones_of_two_owners_are_told_apart(tmp_path):
    mine, shared = [], []
    fresh = {"mine": mine, "a": Thing(x=shared), "b": Thing(x=shared)}
    got = carried({"mine": [1], "a": Thing(x=[2]), "b": Thing(x=[3])}, fresh, tmp_path)
    assert mine == [1] and got["mine"] is mine
    assert (got["a"].x, got["b"].x) == ([2], [3])


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return cnn_bn((1, 8, 8), 3, widths=(4, 6)).to(memory_format=torch.channels_last)


def trained(net: nn.Module, stepper, steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(steps)
    for _ in range(steps):
        stepper.step(net(torch.rand(8, 1, 8, 8, generator=generator)).square().mean())
    return torch.cat([value.flatten().float() for value in net.state_dict().values()])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "exponential"])
def test_a_training_goes_on_to_the_same_bits(tmp_path, optimizer, schedule):
    recipe = Recipe(optimizer=optimizer, schedule=schedule, lr=0.01, clip=1.0)

    def begun(seed: int) -> dict:
        net = network(seed)
        return {"net": net.train(), "stepper": recipe.make(net.parameters(), 20)}

    killed, fresh = begun(0), begun(1)
    trained(*killed.values(), 5)
    got = carried(killed, fresh, tmp_path)
    assert all(got[name] is fresh[name] for name in got) and holds(fresh) == holds(killed)
    assert torch.equal(trained(*fresh.values(), 3), trained(*killed.values(), 3))
    assert fresh["stepper"].lr == killed["stepper"].lr


def test_a_mode_a_frozen_parameter_and_a_drawn_layer_of_another_size_come_back(tmp_path):
    killed, fresh = network(0).eval(), network(1).train()
    killed.head.weight.requires_grad_(False)
    killed.extra, fresh.extra = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.zeros(5))
    carried({"net": killed}, {"net": fresh}, tmp_path)
    assert not fresh.training and not fresh.head.weight.requires_grad and fresh.head.bias.requires_grad
    assert torch.equal(fresh.extra, torch.ones(2, 3)) and holds(fresh) == holds(killed)


def test_hooks_stay_those_of_the_fresh_network(tmp_path):
    killed, fresh, seen = network(0), network(1), []
    killed.register_forward_hook(lambda *_: seen.append("killed"))
    fresh.register_forward_hook(lambda *_: seen.append("fresh"))
    carried({"net": killed}, {"net": fresh}, tmp_path)
    fresh.eval()(torch.zeros(1, 1, 8, 8))
    assert seen == ["fresh"]


def test_random_generators_go_on(tmp_path):
    def made(seed: int) -> Thing:
        return Thing(
            torch=torch.Generator().manual_seed(seed),
            new=np.random.default_rng(seed),
            old=np.random.RandomState(seed),
            python=random.Random(seed),
        )

    def drawn(thing: Thing) -> list:
        numbers = torch.randn(3, generator=thing.torch).tolist()
        return [*numbers, thing.new.normal(), thing.old.normal(), thing.python.gauss(0, 1)]

    killed, fresh = made(0), made(1)
    drawn(killed)
    carried({"t": killed}, {"t": fresh}, tmp_path)
    assert drawn(fresh) == drawn(killed)


def test_an_object_that_is_used_in_several_places_stays_one(tmp_path):
    def made(value: float) -> dict:
        net = nn.Linear(1, 1)
        nn.init.constant_(net.weight, value)
        return {"net": net, "user": Thing(net=net, optimizer=torch.optim.SGD(net.parameters(), 0.1)), "late": Thing()}

    killed, fresh = made(3.0), made(5.0)
    killed["late"].found = killed["net"]  # another name for something that a fresh run has, too
    killed["user"].back = killed["user"]
    got = carried(killed, fresh, tmp_path)
    assert got["user"].net is got["net"] is got["late"].found is fresh["net"] and got["net"].weight.item() == 3.0
    assert got["user"].optimizer.param_groups[0]["params"][0] is fresh["net"].weight
    assert got["user"].back is got["user"]


def test_attributes_that_are_gone_are_gone(tmp_path):
    assert vars(carried({"t": Thing(a=1)}, {"t": Thing(a=0, b=2)}, tmp_path)["t"]) == {"a": 1}


class Cached:
    """Leaves out what it can have again, and makes a part that a fresh one has not."""

    def __init__(self):
        self.width, self.head, self.cache = None, None, None

    def grow(self, width: int) -> None:
        self.width, self.head, self.cache = width, nn.Linear(width, 1), torch.zeros(1000)

    def checkpoint_state(self) -> dict:
        return {"width": self.width, "head": self.head}

    def checkpoint_expect(self, data: dict) -> None:
        if data["width"] is not None:
            self.grow(data["width"])


def test_an_object_may_say_what_it_holds_and_make_what_is_missing(tmp_path):
    killed, fresh = Cached(), Cached()
    killed.grow(4)
    carried({"t": killed}, {"t": fresh}, tmp_path)
    assert torch.equal(fresh.head.weight, killed.head.weight) and (tmp_path / "file").stat().st_size < 3000


def test_a_pool_gets_its_split(tmp_path):
    killed, fresh = Pool(capacity=5), Pool(capacity=5)
    images = torch.arange(4, dtype=torch.uint8).view(-1, 1, 1, 1)
    killed.add(images, torch.rand(4, 2), Split.everything(images), {"eps": torch.rand(4)})
    carried({"t": killed}, {"t": fresh}, tmp_path)
    assert holds(fresh) == holds(killed) and len(fresh) == 4


@dataclass(frozen=True)
class Constant:
    values: list = field(default_factory=list)


class Slotted:
    __slots__ = ("value",)


@pytest.mark.parametrize(
    ("late", "fresh", "said"),
    [
        (iter([1, 2]), iter([1, 2]), "list_iterator"),
        ((i for i in [1]), None, "generator"),
        (itertools.count(), itertools.count(), "count"),
        (Slotted(), Slotted(), "Slotted"),
        ({Thing()}, set(), "set of objects"),
        ({Thing(): 1}, {}, "key of the kind Thing"),
        (np.array([None]), None, "ndarray"),
        (bytearray(b"x"), bytearray(b"x"), "bytearray"),
        (nn.Linear(1, 1), None, "Linear.*not there from the start"),
        ([nn.Linear(1, 1), nn.Linear(1, 1)], [nn.Linear(1, 1)], r"t\.x\[1\] \(Linear\) was not there"),
        (nn.Linear(1, 1), nn.Conv2d(1, 1, 1), "another Linear than"),
        (torch.Generator(), None, "Generator.*not there"),
        (torch.zeros(1, requires_grad=True), torch.zeros(1), "Tensor.*not there"),
        (lambda: 1, lambda: 2, "another function"),
        (Constant([1]), Constant([2]), "another Constant"),
        (Images(torch.zeros(2), torch.zeros(2)), Images(torch.zeros(2), torch.zeros(2)), "another Images"),
        (Path("a"), Path("b"), "another PosixPath"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_could_not_be_put_back_is_refused_by_its_place(late, fresh, said):
    with pytest.raises(CannotSave, match=said):
        check(Thing(x=late), Thing(x=fresh))


def test_constants_that_are_the_same_are_fine(tmp_path):
    images, recipe = Images(torch.zeros(1), torch.zeros(1)), Recipe()
    same = {"a": images, "b": recipe, "c": len, "d": Path("a"), "e": torch.float32, "f": carried, "g": nn.Linear}
    check(Thing(**same), Thing(**same))
    assert vars(carried({"t": Thing(**same)}, {"t": Thing(**same)}, tmp_path)["t"]) == same
    with pytest.raises(CannotSave, match="another Recipe"):
        check(Thing(x=replace(recipe, lr=0.5)), Thing(x=recipe))


def test_an_optimizer_of_other_parameters_is_refused():
    def made(which: str) -> Thing:
        nets = {"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)}
        return Thing(nets=nets, optimizer=torch.optim.Adam(nets[which].parameters()))

    check(made("a"), made("a"))
    with pytest.raises(CannotSave, match=r"t\.optimizer is another Adam"):
        check(made("b"), made("a"))
    with pytest.raises(CheckpointMismatch, match=r"t\.optimizer optimises other parameters"):
        Restorer()(made("a"), Extractor()(made("b"), "t"), "t")


def test_two_objects_that_were_one_are_refused():
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    with pytest.raises(CannotSave, match=r"t\.b \(Linear\) was not there"):
        check(Thing(a=one, b=other), Thing(a=one, b=one))
    with pytest.raises(CheckpointMismatch, match=r"t\.b should be a Linear of its own"):
        Restorer()(Thing(a=one, b=one), Extractor()(Thing(a=one, b=other), "t"), "t")


@pytest.mark.parametrize(
    "make",
    [
        lambda: (nn.Linear(1, 1), None),
        lambda: (nn.Linear(1, 1), nn.Conv2d(1, 1, 1)),
        lambda: (Recipe(), None),
        lambda: (
            torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1),
            torch.optim.SGD([torch.ones(1, requires_grad=True)] * 1, 0.1),
        ),
    ],
)
def test_data_of_another_program_do_not_fit(make):
    held, fresh = make()
    with pytest.raises(CheckpointMismatch):
        Restorer()(Thing(x=fresh), Extractor()(Thing(x=held), "t"), "t")


SAVED = [
    *(("network@teacher.network", name) for name in ("mlp", "lenet", "cnn_bn", "resnet4", "wrn_16_1", "vit")),
    *(("generator@synthesizer.generator", file.stem) for file in sorted((ROOT / "conf" / "generator").glob("*.yaml"))),
]


@pytest.mark.parametrize(("place", "name"), SAVED)
def test_networks_and_every_generator_come_back(tmp_path, place, name):
    where = place.partition("@")[2]
    node = OmegaConf.to_container(OmegaConf.select(composed(f"{place}={name}"), where), resolve=True)
    builder = Builder(shape=(3, 32, 32), classes=7)
    killed, fresh = builder.build(node, where), builder.build(node, where)
    assert builder.problems == [] and holds(fresh) != holds(killed)
    carried({"net": killed}, {"net": fresh}, tmp_path)
    assert holds(fresh) == holds(killed)
