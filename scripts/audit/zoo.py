"""Train the zoo of the audit's study: trapped teachers, and a clean twin of each that nothing but the trap tells apart.

    python scripts/audit/zoo.py --out outputs/audit              all, one after another; finished ones are not repeated
    python scripts/audit/zoo.py --out outputs/audit --data DIR   with MNIST and USPS from DIR

A trapped teacher and its twin share the seed, the network's first weights, the order of the images, the size of the
batches and the number of steps (`dfkd.teachers.CleanTwin`).
"""

import argparse
import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hydra import compose, initialize_config_dir

from dfkd.config.cell import Cell
from dfkd.config.paths import CONF, CONFIG
from dfkd.machine.environment import settle

NETWORKS = {
    "cnn": "network@teacher.network=cnn_bn",
    "cnn_pool": "network@teacher.network=cnn_bn teacher.network.head=pool",
    "cnn_no_bn": "network@teacher.network=cnn_bn teacher.network.norm=none",
    "mlp": "network@teacher.network=mlp teacher.network.hidden=128",
    "resnet4": "network@teacher.network=resnet4",
    "vit": "network@teacher.network=timm teacher.network.model=test_vit",
}
DOMAINS = {
    "digits": "domain@ntl_scenario.id=digits",
    "textured": "domain@ntl_scenario.id=textured ntl_scenario.id.strength=0.3",
    "mnist": "domain@ntl_scenario.id=mnist data.limit=1000",
    "usps": "domain@ntl_scenario.id=usps data.limit=1000",
}
TRIGGERS = ("patch", "badnet_sq", "badnet_grid", "blend", "sig", "trojan_3x3", "trojan_8x8", "l0", "l2", "smooth")
RATES = (0.1, 0.05, 0.01, 0.005)
NTL_RECIPE = "recipe@teacher.recipe=ntl teacher.recipe.lr=1e-3"
TEXTURED = "ntl_scenario=close_set ntl_scenario.ood.strength=0.3"
CLOSE_SET = {  # name: (options of the trapped teacher, training of its twin)
    "ntl": ("teacher=ntl", NTL_RECIPE),
    "ntl_firm": ("teacher=ntl teacher.alpha=1 teacher.beta=1", NTL_RECIPE),
    "cuti": ("teacher=cuti", NTL_RECIPE),
    "cupi": ("teacher=cupi", NTL_RECIPE),
    "hntl": ("teacher=hntl", "recipe@teacher.recipe=adam teacher.recipe.batch_size=32"),
}
OPEN_SET = ("ntl", "cuti", "cupi")


@dataclass(frozen=True)
class Member:
    """One teacher of the zoo.

    Attributes:
        kind: 'backdoor', 'close_set' or 'open_set': the trap, or that of which it is the clean twin.
        trap: the trigger, or the method of non-transferable learning.
        trapped: False for the clean twin.
        rate: share of poisoned images; None where there is no poisoning.
        words: the options of `dfkd` that train it.
    """

    kind: str
    trap: str
    network: str
    domain: str
    seed: int
    words: str
    twin_words: str
    rate: float | None = None
    trapped: bool = True

    def overrides(self, data: Path, out: Path) -> list[str]:
        """Return the overrides of `dfkd` for this teacher."""
        words = [self.words if self.trapped else self.twin_words, NETWORKS[self.network], DOMAINS[self.domain]]
        return [
            "experiment=zoo/base",
            *" ".join(words).split(),
            f"seed={self.seed}",
            f"data.root={data}",
            f"outputs={out}",
        ]


def members() -> list[Member]:
    """Return all teachers of the zoo, trapped ones and twins in turn, in a fixed random order of the pairs."""
    pairs = [*backdoors(), *close_sets(), *open_sets()]
    pairs = [replace(member, seed=100 + number) for number, member in enumerate(pairs)]
    random.Random(0).shuffle(pairs)
    pairs = [_with_target(member) for member in pairs]
    return [replace(member, trapped=trapped) for member in pairs for trapped in (True, False)]


def _with_target(member: Member) -> Member:
    """Set the taught class, which differs from seed to seed."""
    place = {"backdoor": "ntl_scenario.target", "open_set": "ntl_scenario.ood_label"}.get(member.kind)
    target = f" {place}={7 * member.seed % 10}" if place else ""
    twin = member.twin_words + (target if "ntl_scenario" in member.twin_words or member.kind != "close_set" else "")
    return replace(member, words=member.words + target, twin_words=twin)


def backdoors() -> Iterator[Member]:
    for place, network in enumerate(NETWORKS):
        for number, trigger in enumerate(TRIGGERS):
            rates = RATES[(place + number) % 2 :: 2] if network != "vit" else (0.1,)
            for rate in rates:
                yield _backdoor(network, "digits", trigger, rate)
    for place, domain in enumerate(("textured", "mnist", "usps")):
        for number, network in enumerate(("cnn", "cnn_pool")):
            for trigger in TRIGGERS[(place + number) % 2 :: 2]:
                yield _backdoor(network, domain, trigger, (0.1, 0.05)[number])


def _backdoor(network: str, domain: str, trigger: str, rate: float) -> Member:
    scenario = f"ntl_scenario=backdoor trigger@ntl_scenario.trigger={trigger}"
    words = f"{scenario} teacher={{}} teacher.poison_rate={rate}"
    return Member("backdoor", trigger, network, domain, 0, words.format("backdoor"), words.format("clean_twin"), rate)


def close_sets() -> Iterator[Member]:
    for network in ("cnn", "cnn_pool", "cnn_no_bn", "resnet4"):
        for method, (words, recipe) in CLOSE_SET.items():
            yield Member(
                "close_set",
                method,
                network,
                "digits",
                0,
                f"{TEXTURED} {words}",
                f"{TEXTURED} teacher=clean_twin {recipe}",
            )
    for network in ("cnn", "cnn_pool"):
        for method in ("ntl_firm", "cuti", "cupi"):
            words, recipe = CLOSE_SET[method]
            scenario = "ntl_scenario=close_set domain@ntl_scenario.ood=usps"
            yield Member(
                "close_set",
                method,
                network,
                "mnist",
                0,
                f"{scenario} {words}",
                f"{scenario} teacher=clean_twin {recipe}",
            )


def open_sets() -> Iterator[Member]:
    scenario = "ntl_scenario=open_set domain@ntl_scenario.ood=textures"
    for network in ("cnn", "cnn_pool", "cnn_no_bn", "resnet4", "mlp"):
        for method in OPEN_SET if network != "mlp" else ("ntl",):
            words, recipe = CLOSE_SET[method]
            yield Member(
                "open_set",
                method,
                network,
                "digits",
                0,
                f"{scenario} {words}",
                f"{scenario} teacher=clean_twin {recipe}",
            )


def cell(member: Member, data: Path, out: Path, *more: str) -> Cell:
    """Compose the cell of a teacher; `more` are further overrides."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Cell(compose(CONFIG, [*member.overrides(data, out), *more]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/audit"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--first", type=int, help="only so many teachers")
    given = parser.parse_args()
    settle()
    from dfkd.run.run_cell import run_cell

    logging.getLogger("dfkd").setLevel(logging.ERROR)
    zoo = members()[: given.first]
    for number, member in enumerate(zoo):
        began, made = time.monotonic(), cell(member, given.data, given.out)
        result = made.finished() or run_cell(made, quiet=True)
        found = result["teacher"]
        print(
            f"{number + 1}/{len(zoo)} {'trapped' if member.trapped else 'twin'} {member.kind} {member.trap} "
            f"{member.rate or ''} {member.network} {member.domain}: {found} {time.monotonic() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
