"""The study of the audit: how well it tells trapped teachers from clean ones, in the tables of docs/audit.md.

    python scripts/audit/study.py --out outputs/audit --data DIR --fit      fit the verdict on one part of the zoo
    python scripts/audit/study.py --out outputs/audit --data DIR            the tables of the other part

The teachers are those of scripts/audit/zoo.py which are finished; the others are left out. `--fit` looks at the part to
choose on only, and writes dfkd/audit/model.json. Without it, the verdict is tried on the other part; every such look is
counted in a file beside the teachers, and the count is printed.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scores import auroc, calibration, caught, interval
from zoo import Member, cell, members

from dfkd.audit import Looks
from dfkd.audit.signals import SIGNALS, signals
from dfkd.audit.verdict import features, judge, shipped_model

MODEL = Path(__file__).resolve().parents[2] / "dfkd" / "audit" / "model.json"
OBEYED = 90.0  # percent of triggered or OOD images that the teacher gives the taught class
# What the verdict is fitted on. A teacher with any other network, trap or domain is kept for the end.
NETWORKS, DOMAINS = ("cnn", "cnn_no_bn", "mlp"), ("digits",)
TRAPS = ("patch", "badnet_sq", "blend", "sig", "l0", "smooth", "ntl", "ntl_firm", "cuti")
CAP, STRENGTH = 3.0, 1.0  # limit of a feature; inverse weight of the penalty of the logistic regression


@dataclass(frozen=True)
class Audited:
    """A teacher of the zoo with what was measured and seen.

    Attributes:
        judgement: its accuracies on real images, in percent.
        seconds: what its audit took.
    """

    member: Member
    judgement: dict
    looks: Looks
    seconds: float

    @property
    def obeyed(self) -> bool:
        """Whether a trap is obeyed; for a close set, in which no class is taught, whether it is wrong on OOD images."""
        taught = self.judgement["asr"] if self.member.kind == "backdoor" else self.judgement["olacc"]
        if self.member.kind == "close_set":
            return self.judgement["oacc"] <= 20
        return taught >= OBEYED

    @property
    def to_choose(self) -> bool:
        """Whether thresholds may be chosen on it; a twin belongs to the part of its trapped teacher."""
        m = self.member
        return m.network in NETWORKS and m.domain in DOMAINS and m.trap in TRAPS and m.seed % 3 != 0


def audited(out: Path, data: Path) -> list[Audited]:
    """Return the finished teachers of the zoo."""
    found = []
    for member in members():
        result = cell(member, data, out).finished()
        if result is None:
            continue
        artifact = out / "store" / "audit" / result["stages"]["audit"]["key"] / "meta.json"
        meta = json.loads(artifact.read_text())
        found.append(Audited(member, result["teacher"], Looks(**meta["looks"]), meta["seconds"]))
    return found


def chosen(teachers: Iterable[Audited]) -> list[Audited]:
    """Leave out traps that the teacher does not obey: it is neither trapped nor clean."""
    return [t for t in teachers if not t.member.trapped or t.obeyed]


def fit(teachers: list[Audited]) -> dict:
    """Fit the model of the verdict: spreads from clean teachers, weights by logistic regression with weights >= 0."""
    clean = [signals(t.looks) for t in teachers if not t.member.trapped]
    if not clean or len(clean) == len(teachers):
        raise SystemExit("study: the part to choose on needs clean and trapped teachers; train more of the zoo")
    spread = {name: max(median(max(row[name]) for row in clean), 0.05) for name in SIGNALS}
    model = {"spread": spread, "cap": CAP}
    rows = [features(t.looks, model)[1] for t in teachers]
    bias, weight = _logistic([[row[name] for name in SIGNALS] for row in rows], [t.member.trapped for t in teachers])
    at_suspect = [_at_suspect(t, model) for t in teachers if not t.member.trapped]
    usual = {name: sorted(row[name] for row in at_suspect)[int(0.95 * (len(at_suspect) - 1))] for name in SIGNALS}
    trapped = len(teachers) - len(clean)
    made = (
        f"scripts/audit/study.py --fit on {trapped} trapped teachers and {len(clean)} clean ones of the zoo (networks "
        f"{', '.join(sorted({t.member.network for t in teachers}))}; traps that are obeyed): logistic regression, L2"
    )
    parts = {"spread": spread, "weight": dict(zip(SIGNALS, weight, strict=True)), "usual": usual}
    rounded = {part: {name: round(value, 4) for name, value in row.items()} for part, row in parts.items()}
    return {"made": made, "cap": CAP, "bias": round(bias, 4)} | rounded


def _at_suspect(teacher: Audited, model: dict) -> dict[str, float]:
    suspect, _ = features(teacher.looks, model)
    return {name: row[suspect] for name, row in signals(teacher.looks).items()}


def _logistic(rows: list[list[float]], labels: list[bool]) -> tuple[float, list[float]]:
    """Minimise mean cross-entropy + |w|^2 / (2 STRENGTH n) over a bias and weights w >= 0, both classes weighted alike:
    more suspicion must never lower the probability."""
    import torch
    import torch.nn.functional as F

    x, y = torch.tensor(rows, dtype=torch.float64), torch.tensor(labels, dtype=torch.float64)
    balance = torch.where(y > 0, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    w, b = torch.zeros(x.shape[1], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    optimizer = torch.optim.Adam([w.requires_grad_(), b.requires_grad_()], lr=0.05)
    for _ in range(2000):
        loss = F.binary_cross_entropy_with_logits(x @ w + b, y, balance) + w.square().sum() / (2 * STRENGTH * len(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        w.data.clamp_(min=0)
    return b.item(), w.tolist()


# The scores beside the verdict's probability, each from the looks at one teacher.
def _top_over_second(values: list[float]) -> float:
    first, second = sorted(values, reverse=True)[:2]
    return first / max(second, 1e-6)


SCORES: dict[str, Callable[[Audited], float]] = {
    "**audit**": lambda t: judge(t.looks).probability,
    "smallest mask (Neural Cleanse's, the plain ratio)": lambda t: max(signals(t.looks)["masks"]),
    "largest margin (MM-BD's)": lambda t: _top_over_second(t.looks.values["margins"]),
    "last layer (the idea of HTell, DFBScanner)": lambda t: max(signals(t.looks)["last_layer"]),
    "flip radius": lambda t: max(signals(t.looks)["flips"]),
    "scouts": lambda t: max(t.looks.values["scouts"]),
    "universal shifts": lambda t: max(signals(t.looks)["shifts"]),
    "universal marks": lambda t: max(signals(t.looks)["marks"]),
}


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def row(name: str, trapped: list[float], clean: list[float]) -> list[str]:
    """A row of numbers for one score: AUROC with its interval, and the shares that are caught."""
    low, high = interval(trapped, clean)
    return [
        name,
        f"{len(trapped)} / {len(clean)}",
        f"{auroc(trapped, clean):.3f} ({low:.2f} to {high:.2f})",
        f"{100 * caught(trapped, clean, 0.01):.0f}",
        f"{100 * caught(trapped, clean, 0.05):.0f}",
    ]


def groups(teachers: list[Audited]) -> dict[str, list[Audited]]:
    """Return the teachers by kind of trap, network and domain, in words."""
    found: dict[str, list[Audited]] = {"all": teachers}
    for t in teachers:
        for name in (f"trap: {t.member.trap}", f"network: {t.member.network}", f"images: {t.member.domain}"):
            found.setdefault(name, []).append(t)
    return found


def tables(teachers: list[Audited]) -> str:
    """Return the tables of docs/audit.md for a part of the zoo, as Markdown. Clean teachers are those of the same row,
    and for a trap all of them."""
    kept = chosen(teachers)
    every = [t for t in kept if not t.member.trapped]
    head = ["", "trapped / clean", "AUROC (95 %)", "caught at 1 % FPR", "at 5 %"]
    scores, parts = [], []
    for name, score in SCORES.items():
        scores.append(row(name, *([score(t) for t in kept if t.member.trapped is is_in] for is_in in (True, False))))
    audit = SCORES["**audit**"]
    for name, part in groups(kept).items():
        trapped = [audit(t) for t in part if t.member.trapped]
        clean = [audit(t) for t in (every if name.startswith("trap") else part) if not t.member.trapped]
        if trapped and clean:
            parts.append(row(name, trapped, clean))
    answers = [judge(t.looks) for t in kept]
    error, bins = calibration([a.probability for a in answers], [t.member.trapped for t in kept])
    diagram = [[f"{chance:.2f}", f"{share:.2f}", str(count)] for chance, share, count in bins]
    said = [[str(sum(a.answer == word and t.member.trapped is is_in for a, t in zip(answers, kept, strict=True)))
             for word in ("trapped", "cannot tell", "not trapped")] for is_in in (True, False)]  # fmt: skip
    named = [
        answer.suspect == t.member.target
        for answer, t in zip(answers, kept, strict=True)
        if t.member.trapped and t.member.target is not None
    ]
    seconds = [t.seconds for t in teachers]
    left = sum(t.member.trapped and not t.obeyed for t in teachers)
    return "\n\n".join(
        [
            table(["score", *head[1:]], scores),
            table(["teachers", *head[1:]], parts),
            table(["", "trapped", "cannot tell", "not trapped"], [["trapped", *said[0]], ["clean", *said[1]]]),
            table(["mean probability", "share of trapped", "teachers"], diagram),
            f"Calibration error {error:.3f}. The taught class is named for {sum(named)} of {len(named)} teachers that "
            f"have one. {left} teachers that do not obey their trap are left out. An audit took "
            f"{median(seconds):.0f} s (median) and at most {max(seconds):.0f} s.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/audit"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--fit", action="store_true", help="fit the verdict on the part to choose on")
    given = parser.parse_args()
    teachers = audited(given.out, given.data)
    if given.fit:
        part = [t for t in teachers if t.to_choose]
        MODEL.write_text(json.dumps(fit(chosen(part)), indent=2) + "\n")
        shipped_model.cache_clear()
        print(f"{MODEL}: fitted\n\nThe part that it was fitted on:\n\n{tables(part)}")
        return
    looks = given.out / "looks_at_the_end.txt"
    count = int(looks.read_text()) + 1 if looks.exists() else 1
    looks.write_text(str(count))
    print(f"Look number {count} at this part.\n\n{tables([t for t in teachers if not t.to_choose])}")


if __name__ == "__main__":
    main()
