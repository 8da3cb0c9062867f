"""Train the zoo of the audit's study: trapped teachers, and a clean twin of each that nothing but the trap tells apart.

    python scripts/audit/zoo.py --out outputs/audit              all, one after another; finished ones are not repeated
    python scripts/audit/zoo.py --out outputs/audit --data DIR   with MNIST, USPS and cifar10.npz from DIR

A trapped teacher and its twin share the seed, the network's first weights, the order of the images, the size of the
batches and the number of steps (`dfkd.teachers.CleanTwin`).
"""

import argparse
import logging
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dfkd.config.cell import Cell
from dfkd.machine.environment import prepare_environment
from dfkd.sweeps.compose import composed

NETWORKS = {
    "cnn": "network@teacher.network=cnn_bn",
    "cnn_pool": "network@teacher.network=cnn_bn teacher.network.head=pool",
    "cnn_no_bn": "network@teacher.network=cnn_bn teacher.network.norm=none",
    "mlp": "network@teacher.network=mlp teacher.network.hidden=128",
    "resnet4": "network@teacher.network=resnet4",
    "wrn": "network@teacher.network=wrn_16_1 teacher.epochs=30 teacher.recipe.batch_size=64",
    "vit": "network@teacher.network=timm teacher.network.model=test_vit recipe@teacher.recipe=adam teacher.epochs=60",
}
DOMAINS = {
    "digits": "domain@ntl_scenario.id=digits",
    "textured": "domain@ntl_scenario.id=textured ntl_scenario.id.strength=0.3",
    "mnist": "domain@ntl_scenario.id=mnist data.limit=1000",
    "usps": "domain@ntl_scenario.id=usps data.limit=1000",
    "mnistm": "domain@ntl_scenario.id=mnistm data.limit=1000",
    "cifar10": "domain@ntl_scenario.id=npz ntl_scenario.id.path={data}/cifar10.npz data.limit=5000",
}
TRIGGERS = ("patch", "badnet_sq", "badnet_grid", "blend", "sig", "trojan_3x3", "trojan_8x8", "l0", "l2", "smooth")
OF_FEW_PIXELS = ("patch", "badnet_sq", "badnet_grid", "trojan_3x3", "trojan_8x8", "l0")
# Those of which fewer than six teachers of the part to test on obeyed at the first look at it: three more of each.
FEW = ("patch", "smooth", "blend", "badnet_grid", "l0", "l2", "sig", "trojan_3x3", "trojan_8x8")
RATES = (0.1, 0.05, 0.01, 0.005)
UNSEEN = ("wrn", "mnistm")  # networks and images of the part to test on alone
FIRST, FIRST_TESTED = 100, 1000  # first seeds of the part to choose on, and of the part to test on
NTL_TWIN = "teacher=clean_twin recipe@teacher.recipe=ntl teacher.recipe.lr=1e-3"
METHODS = {  # name: (the trapped teacher, its twin)
    "ntl": ("teacher=ntl", NTL_TWIN),
    "ntl_firm": ("teacher=ntl teacher.alpha=1 teacher.beta=1", NTL_TWIN),
    "cuti": ("teacher=cuti", NTL_TWIN),
    "cupi": ("teacher=cupi", NTL_TWIN),
    "hntl": ("teacher=hntl", "teacher=clean_twin recipe@teacher.recipe=adam teacher.recipe.batch_size=32"),
}
# Its twin makes the same steps, with a learning rate that changes nothing where the trap is learned.
SOPHON = "teacher=sophon", "teacher=sophon teacher.name=clean_twin teacher.suppress_lr=1e-12"
OPEN_SET = ("ntl", "cuti", "cupi")
TARGETS = {"backdoor": "ntl_scenario.target", "open_set": "ntl_scenario.ood_label"}  # where the taught class is set


@dataclass(frozen=True)
class Member:
    """One teacher of the zoo.

    Attributes:
        kind: the scenario: 'backdoor', 'close_set' or 'open_set'; of a twin, that of its trapped teacher.
        trap: the trigger, or the method of non-transferable learning.
        network, domain: keys of `NETWORKS` and `DOMAINS`.
        scenario: overrides that choose the scenario.
        method: overrides that choose the trapped teacher.
        twin: overrides that choose its clean twin.
        rate: share of poisoned images; None where there is no poisoning.
        trapped: False for the twin.
    """

    kind: str
    trap: str
    network: str
    domain: str
    scenario: str
    method: str
    twin: str
    rate: float | None = None
    seed: int = 0
    trapped: bool = True

    @property
    def target(self) -> int | None:
        """The class that is taught outside of the domain; None in a close set."""
        return None if self.kind == "close_set" else 7 * self.seed % 10

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds (`dfkd.audit.verdict.KINDS`) that are right for this trap."""
        if self.kind != "backdoor":
            return ("outside",)
        return ("mark",) if self.trap in OF_FEW_PIXELS else ("pattern", "outside")

    @property
    def name(self) -> str:
        """The name by which it is known beside the zoo: a pair has a seed of its own."""
        return name_of(self.seed, self.trapped)

    def overrides(self, data: Path, out: Path) -> list[str]:
        """Return the overrides of `dfkd` for this teacher."""
        target = "" if self.target is None else f"{TARGETS[self.kind]}={self.target}"
        method = self.method if self.trapped else self.twin
        words = [self.scenario, method, target, NETWORKS[self.network], DOMAINS[self.domain].format(data=data)]
        places = [f"data.root={data}", f"outputs={out}"]
        return ["experiment=zoo/base", *" ".join(words).split(), f"seed={self.seed}", *places]


def name_of(seed: int, trapped: bool) -> str:
    return f"{seed} {'trapped' if trapped else 'twin'}"


def name_in(result: dict) -> str:
    """Return the name of the teacher of a result (result.json)."""
    return name_of(result["seed"], result["config"]["teacher"]["name"] != "clean_twin")


def members() -> list[Member]:
    """Return all teachers of the zoo: those to choose on, and after them those to test on."""
    to_choose = [*backdoors(), *close_sets(), *open_sets(), *sophons(), *of_cifar()]
    return [*pairs(to_choose, FIRST), *pairs(to_test(), FIRST_TESTED)]


def pairs(trapped: Iterable[Member], first: int) -> list[Member]:
    """Give trapped teachers seeds from `first` on. Return them in a fixed random order, each followed by its twin."""
    numbered = [replace(member, seed=first + number) for number, member in enumerate(trapped)]
    random.Random(0).shuffle(numbered)
    return [replace(member, trapped=is_in) for member in numbered for is_in in (True, False)]


def backdoors() -> Iterator[Member]:
    for place, network in enumerate(name for name in NETWORKS if name not in UNSEEN):
        for number, trigger in enumerate(TRIGGERS):
            rates = RATES[(place + number) % 2 :: 2] if network != "vit" else (0.1,)
            for rate in rates:
                yield backdoor(network, "digits", trigger, rate)
    for place, domain in enumerate(("textured", "mnist", "usps")):
        for number, network in enumerate(("cnn", "cnn_pool")):
            for trigger in TRIGGERS[(place + number) % 2 :: 2]:
                yield backdoor(network, domain, trigger, (0.1, 0.05)[number])


def backdoor(network: str, domain: str, trigger: str, rate: float) -> Member:
    scenario = f"ntl_scenario=backdoor trigger@ntl_scenario.trigger={trigger}"
    method, twin = (f"teacher={name} teacher.poison_rate={rate}" for name in ("backdoor", "clean_twin"))
    return Member("backdoor", trigger, network, domain, scenario, method, twin, rate)


def close_sets() -> Iterator[Member]:
    textured = "ntl_scenario=close_set ntl_scenario.ood.strength=0.3"
    for network in ("cnn", "cnn_pool", "cnn_no_bn", "resnet4"):
        for name, (method, twin) in METHODS.items():
            yield Member("close_set", name, network, "digits", textured, method, twin)
    usps = "ntl_scenario=close_set domain@ntl_scenario.ood=usps"
    for network in ("cnn", "cnn_pool"):
        for name in ("ntl_firm", "cuti", "cupi"):
            yield Member("close_set", name, network, "mnist", usps, *METHODS[name])


def open_sets() -> Iterator[Member]:
    scenario = "ntl_scenario=open_set domain@ntl_scenario.ood=textures"
    for network in ("cnn", "cnn_pool", "cnn_no_bn", "resnet4", "mlp"):
        for name in OPEN_SET if network != "mlp" else ("ntl",):
            yield Member("open_set", name, network, "digits", scenario, *METHODS[name])


def sophons() -> Iterator[Member]:
    textured = "ntl_scenario=close_set ntl_scenario.ood.strength=0.3"
    for network in ("cnn", "cnn_pool", "cnn_no_bn", "resnet4"):
        yield Member("close_set", "sophon", network, "digits", textured, *SOPHON)


def of_cifar() -> Iterator[Member]:
    for number, network in enumerate(("cnn", "resnet4")):
        for trigger in TRIGGERS[number::2]:
            yield backdoor(network, "cifar10", trigger, 0.1)


def to_test() -> Iterator[Member]:
    """The part to test on: half of the triggers for every network and kind of images, and the traps that are firm."""
    for place, network in enumerate(NETWORKS):
        triggers = TRIGGERS[place % 2 :: 2] if network != "vit" else TRIGGERS[1::4]
        for number, trigger in enumerate(triggers):
            yield backdoor(network, "digits", trigger, 0.1 if network == "vit" else RATES[(place + number) % 3])
    for place, domain in enumerate(("textured", "mnist", "usps", "mnistm")):
        for number, network in enumerate(("cnn", "cnn_pool")):
            for trigger in TRIGGERS[(place + 3 * number) % 5 :: 5]:
                yield backdoor(network, domain, trigger, (0.1, 0.05)[number])
    for number, network in enumerate(("cnn", "resnet4")):
        for trigger in TRIGGERS[number::4]:
            yield backdoor(network, "cifar10", trigger, 0.1)
    textured = "ntl_scenario=close_set ntl_scenario.ood.strength=0.3"
    textures = "ntl_scenario=open_set domain@ntl_scenario.ood=textures"
    usps = "ntl_scenario=close_set domain@ntl_scenario.ood=usps"
    for name in ("ntl_firm", "cuti", "cupi"):
        for network in ("cnn", "cnn_pool", "resnet4"):
            yield Member("close_set", name, network, "digits", textured, *METHODS[name])
            yield Member("open_set", name, network, "digits", textures, *METHODS[name])
        yield Member("close_set", name, "cnn", "mnist", usps, *METHODS[name])
    networks = [name for name in NETWORKS if name != "vit"]
    for number, trigger in enumerate(FEW):
        for step in range(0, len(networks), 2):
            yield backdoor(networks[(number + step) % len(networks)], "digits", trigger, 0.1)


def cell(member: Member, data: Path, out: Path, *more: str) -> Cell:
    """Compose the cell of a teacher; `more` are further overrides."""
    return Cell(composed(*member.overrides(data, out), *more))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/audit"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--first", type=int, help="only so many teachers")
    given = parser.parse_args()
    prepare_environment()
    from dfkd.run.run_cell import run_cell

    logging.getLogger("dfkd").setLevel(logging.ERROR)
    zoo = members()[: given.first]
    if not (given.data / "cifar10.npz").exists():
        print(f"without the teachers of CIFAR-10: there is no {given.data / 'cifar10.npz'}", flush=True)
        zoo = [member for member in zoo if member.domain != "cifar10"]
    for number, member in enumerate(zoo):
        began, made = time.monotonic(), cell(member, given.data, given.out)
        result = made.finished_result() or run_cell(made, quiet=True)
        found = result["teacher"]
        print(
            f"{number + 1}/{len(zoo)} {'trapped' if member.trapped else 'twin'} {member.kind} {member.trap} "
            f"{member.rate or ''} {member.network} {member.domain}: {found} {time.monotonic() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
