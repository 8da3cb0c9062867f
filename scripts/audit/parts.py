"""The finished teachers of the zoo, and which of them the verdict may be fitted on."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from zoo import Member, members, name_in

from dfkd.audit import Looks
from dfkd.store.store import Store

WRONG = 30.0  # percent of the OOD images of a close set that are right, at most, where the teacher unlearned them
OBEYED = 90.0  # percent of triggered or OOD images that the teacher gives the taught class
# What the verdict is fitted on. Teachers with another network, trap or domain, and a third of the seeds, are kept.
NETWORKS, DOMAINS = ("cnn_no_bn", "cnn_pool", "mlp"), ("digits",)
KEPT_TRAPS = ("trojan_8x8", "badnet_grid", "l2", "cupi", "sophon")
# Seeds of teachers that were looked at while the looks were designed: never part of what is kept.
EARLY = (120, 122, 131, 132, 143, 158, 166, 168, 171, 174, 188, 192, 217, 234, 272)
BASELINES = "baselines.json"  # what scripts/audit/baselines.py found


@dataclass(frozen=True)
class Audited:
    """A teacher of the zoo with what was measured and seen.

    Attributes:
        judgement: its accuracies on real images, in percent.
        seconds: what its audit took.
        folder: where its audit lies in the store.
        teacher: where the teacher itself lies.
        baselines: scores of detectors that are no look of the audit, by name.
    """

    member: Member
    judgement: dict
    looks: Looks
    seconds: float
    folder: Path
    teacher: Path = Path()
    baselines: dict[str, float] = field(default_factory=dict)

    @property
    def obeyed(self) -> bool:
        """Whether a trap is obeyed; for a close set, in which no class is taught, whether it is wrong on OOD images."""
        taught = self.judgement["asr"] if self.member.kind == "backdoor" else self.judgement["olacc"]
        if self.member.kind == "close_set":
            return self.judgement["oacc"] <= WRONG
        return taught >= OBEYED

    @property
    def to_choose(self) -> bool:
        """Whether thresholds may be chosen on it; a twin belongs to the part of its trapped teacher."""
        m = self.member
        known = m.network in NETWORKS and m.domain in DOMAINS and m.trap not in KEPT_TRAPS
        return m.seed in EARLY or (known and m.seed % 3 != 0)


def audited(out: Path) -> list[Audited]:
    """Return the finished teachers of the zoo; stop if there is none."""
    found, file = {}, out / BASELINES
    baselines = json.loads(file.read_text()) if file.exists() else {}
    for file in out.glob("runs/*/result.json"):
        result = json.loads(file.read_text())
        if "audit" in result:
            found[name_in(result)] = result
    teachers, store = [], Store(out / "store")
    for member in members():
        result = found.get(member.name)
        if result is not None:
            stored = store.find("audit", result["stages"]["audit"]["key"])
            looks, seconds = Looks(**stored.meta["looks"]), stored.meta["seconds"]
            teacher = store.root / "teacher" / result["stages"]["teacher"]["key"]
            scores = baselines.get(member.name, {})
            teachers.append(Audited(member, result["teacher"], looks, seconds, stored.path, teacher, scores))
    if not teachers:
        raise SystemExit(f"{out} has no finished teacher of the zoo; scripts/audit/zoo.py --out {out} makes them")
    return teachers


def chosen(teachers: Iterable[Audited]) -> list[Audited]:
    """Leave out traps that the teacher does not obey: it is neither trapped nor clean."""
    return [t for t in teachers if not t.member.trapped or t.obeyed]
