"""Distil students from teachers of the zoo: does the audit of a teacher predict what its student inherits?

    python scripts/audit/students.py --out outputs/audit     students of the finished teachers that are in question

Students are made by DFQ without a defense, from those teachers to test on that have one network, know the digits and
are taught a class, and from their clean twins. scripts/audit/study.py writes their table into docs/audit.md.
"""

import argparse
import json
import logging
from pathlib import Path
from statistics import mean

from parts import Audited, audited
from scores import auroc
from zoo import FIRST_TESTED, Member, cell, name_in

from dfkd.audit.verdict import judge
from dfkd.machine.environment import prepare_environment
from dfkd.report.text import markdown_table

NETWORK, DOMAIN = "cnn", "digits"
DFQ = (  # a third of the rounds of experiment=dfq/digits
    *("until=student", "stages.audit.always=true", "synthesizer=dfq", "generator@synthesizer.generator=dcgan_small"),
    *("synthesizer.rounds=390", "synthesizer.lr=3e-3", "prior.bn.weight=3", "prior.balance.weight=5"),
    *("student.capacity=2560", "student.recipe.batch_size=64"),
)
INHERITED = 50.0  # percent of triggered or OOD images that a student gives the taught class, from which it is trapped


def in_question(member: Member) -> bool:
    """Whether a student of this teacher is made."""
    known = member.network == NETWORK and member.domain == DOMAIN
    return member.seed >= FIRST_TESTED and known and member.target is not None


def inherited(out: Path) -> dict[str, float]:
    """Return what finished students give the taught class, in percent of triggered or OOD test images, by the name of
    their teacher (`Member.name`)."""
    found = {}
    for file in out.glob("runs/*/result.json"):
        result = json.loads(file.read_text())
        if student := result.get("student"):
            taught = student["asr"] if student["asr"] is not None else student["olacc"]
            found[name_in(result)] = taught
    return found


def table(teachers: list[Audited], students: dict[str, float]) -> str:
    """Return what students inherit, by what the audit says of their teachers, as Markdown; empty without students.

    Args:
        teachers: of the part that the verdict was not fitted on, or of all.
        students: see `inherited`.
    """
    pairs = [(judge(t.looks), students[t.member.name]) for t in teachers if t.member.name in students]
    if not pairs:
        return ""
    rows = []
    for answer in ("trapped", "cannot tell", "not trapped"):
        taught = [value for verdict, value in pairs if verdict.answer == answer]
        if taught:
            wrong = sum(value >= INHERITED for value in taught)
            rows.append([answer, len(taught), f"{mean(taught):.1f} ({min(taught):.1f} to {max(taught):.1f})", wrong])
    text = markdown_table(
        ["the audit says of the teacher", "students", "taught class, % (range)", f"trapped: {INHERITED:g} % or more"],
        rows,
    )
    trapped, clean = ([v.probability for v, value in pairs if (value >= INHERITED) is is_in] for is_in in (True, False))
    if trapped and clean:
        text += (
            f"\n\nThe probability that the teacher is trapped tells the {len(trapped)} trapped students from the "
            f"{len(clean)} others with an AUROC of {auroc(trapped, clean):.3f}."
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/audit"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    given = parser.parse_args()
    prepare_environment()
    from dfkd.run.run_cell import run_cell

    logging.getLogger("dfkd").setLevel(logging.ERROR)
    teachers = [t.member for t in audited(given.out) if in_question(t.member)]
    for number, member in enumerate(teachers):
        made = cell(member, given.data, given.out, *DFQ)
        result = made.finished_result() or run_cell(made, quiet=True)
        what = f"{member.name} {member.trap} {member.rate or ''}"
        print(f"{number + 1}/{len(teachers)} {what}: {result['student']}", flush=True)


if __name__ == "__main__":
    main()
