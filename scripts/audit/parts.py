"""The finished teachers of the zoo: which of them are trapped, and which the verdict may be fitted on."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

from zoo import FIRST_TESTED, Member, members, name_in

from dfkd.audit import Looks
from dfkd.store.store import Store

WRONG = 30.0  # percent of the OOD images of a close set that are right, at most, where the teacher unlearned them,
FIRM = 50.0  # and percent of them that it is sure of, at least
OBEYED = 90.0  # percent of triggered or OOD images that the teacher gives the taught class
BASELINES = "baselines.json"  # what scripts/audit/baselines.py found
OF_LOOKS = {of.name for of in fields(Looks)} - {"pictures"}  # what an audit stores
OUTSIDE = "outside.json"  # what scripts/audit/outside.py found


@dataclass(frozen=True)
class Audited:
    """A teacher of the zoo with what was measured and seen.

    Attributes:
        judgement: its accuracies on real images, in percent.
        seconds: what its audit took.
        folder: where its audit lies in the store.
        teacher: where the teacher itself lies.
        baselines: scores of detectors that are no look of the audit, by name.
        outside: what it says of the OOD images of a close set (scripts/audit/outside.py); empty if it was not measured.
    """

    member: Member
    judgement: dict
    looks: Looks
    seconds: float
    folder: Path
    teacher: Path = Path()
    baselines: dict[str, float] = field(default_factory=dict)
    outside: dict[str, float] = field(default_factory=dict)

    @property
    def obeyed(self) -> bool:
        """Whether a trap is obeyed. In a close set, which teaches no class: whether the teacher is firmly wrong on OOD
        images; one that is only unsure there is no trap."""
        if self.member.kind == "close_set":
            return self.judgement["oacc"] <= WRONG and self.outside.get("sure", FIRM) >= FIRM
        return self.judgement["asr" if self.member.kind == "backdoor" else "olacc"] >= OBEYED

    @property
    def to_choose(self) -> bool:
        """Whether the verdict may be fitted on it; a twin belongs to the part of its trapped teacher."""
        return self.member.seed < FIRST_TESTED


def audited(out: Path) -> list[Audited]:
    """Return the finished teachers of the zoo; stop if there is none. Audits by an earlier version of dfkd, which saw
    other things, are left out."""
    found, baselines, outside = {}, _read(out / BASELINES), _read(out / OUTSIDE)
    store = Store(out / "store")
    for file in out.glob("runs/*/result.json"):
        result = json.loads(file.read_text())
        if "audit" in result:
            stored = store.find("audit", result["stages"]["audit"]["key"])
            if set(stored.meta["looks"]) == OF_LOOKS:
                found[name_in(result)] = result, stored
    teachers = []
    for member in members():
        if member.name in found:
            result, stored = found[member.name]
            looks, seconds = Looks(**stored.meta["looks"]), stored.meta["seconds"]
            teacher = store.root / "teacher" / result["stages"]["teacher"]["key"]
            more = teacher, baselines.get(member.name, {}), outside.get(member.name, {})
            teachers.append(Audited(member, result["teacher"], looks, seconds, stored.path, *more))
    if not teachers:
        raise SystemExit(f"{out} has no finished teacher of the zoo; scripts/audit/zoo.py --out {out} makes them")
    return teachers


def _read(file: Path) -> dict:
    return json.loads(file.read_text()) if file.exists() else {}


def chosen(teachers: Iterable[Audited]) -> list[Audited]:
    """Leave out traps that the teacher does not obey: it is neither trapped nor clean."""
    return [t for t in teachers if not t.member.trapped or t.obeyed]
