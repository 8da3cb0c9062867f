"""The study of the audit: how well it tells trapped teachers from clean ones, in the tables of docs/audit.md.

    python scripts/audit/study.py --out outputs/audit --fit      fit the verdict on one part of the zoo
    python scripts/audit/study.py --out outputs/audit            the tables of the other part

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

import torch
import torch.nn.functional as F
from scores import auroc, calibration, caught, interval
from zoo import Member, members

from dfkd.audit import Looks
from dfkd.audit.signals import SIGNALS, signals
from dfkd.audit.verdict import judge, shipped_model, suspicion

MODEL = Path(__file__).resolve().parents[2] / "dfkd" / "audit" / "model.json"
OBEYED = 90.0  # percent of triggered or OOD images that the teacher gives the taught class
# What the verdict is fitted on. Teachers with another network, trap or domain, and a third of the seeds, are kept.
NETWORKS, DOMAINS = ("cnn_no_bn", "cnn_pool", "mlp"), ("digits",)
KEPT_TRAPS = ("trojan_8x8", "badnet_grid", "l2", "cupi")
# Seeds of teachers that were looked at while the looks were designed: never part of what is kept.
EARLY = (120, 122, 131, 132, 143, 158, 166, 168, 171, 174, 188, 192, 217, 234, 272)
COUNTED = ("marks", "mark_success", "shifts", "masks", "margins", "scouts")  # the looks that count, all alike
CAP = 6.0  # limit of a signal, so that no look decides alone


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
        known = m.network in NETWORKS and m.domain in DOMAINS and m.trap not in KEPT_TRAPS
        return m.seed in EARLY or (known and m.seed % 3 != 0)


def audited(out: Path) -> list[Audited]:
    """Return the finished teachers of the zoo; a pair has a seed of its own, by which its results are known."""
    found = {}
    for file in out.glob("runs/*/result.json"):
        result = json.loads(file.read_text())
        if "audit" in result:
            found[result["seed"], result["config"]["teacher"]["name"] != "clean_twin"] = result
    teachers = []
    for member in members():
        result = found.get((member.seed, member.trapped))
        if result is not None:
            stored = out / "store" / "audit" / result["stages"]["audit"]["key"] / "meta.json"
            meta = json.loads(stored.read_text())
            teachers.append(Audited(member, result["teacher"], Looks(**meta["looks"]), meta["seconds"]))
    return teachers


def chosen(teachers: Iterable[Audited]) -> list[Audited]:
    """Leave out traps that the teacher does not obey: it is neither trapped nor clean."""
    return [t for t in teachers if not t.member.trapped or t.obeyed]


def fit(teachers: list[Audited]) -> dict:
    """Fit the numbers of the verdict. The looks in COUNTED weigh the same; only the slope and the bias of the
    probability are fitted, because few teachers tell little about many numbers."""
    clean = [t for t in teachers if not t.member.trapped]
    if not clean or len(clean) == len(teachers):
        raise SystemExit("study: the part to choose on needs clean and trapped teachers; train more of the zoo")
    weight = {name: int(name in COUNTED) for name in SIGNALS}
    model = {"weight": weight, "cap": CAP}
    totals = [suspicion(t.looks, model)[1] for t in teachers]
    slope, bias = logistic(totals, [t.member.trapped for t in teachers])
    found = [at_suspect(t.looks, model) for t in clean]
    usual = {name: round(sorted(row[name] for row in found)[int(0.95 * (len(found) - 1))], 2) for name in SIGNALS}
    networks = ", ".join(sorted({t.member.network for t in teachers}))
    made = (
        f"scripts/audit/study.py --fit on {len(teachers) - len(clean)} teachers that obey a trap and {len(clean)} "
        f"clean ones (networks: {networks}): the same weight for every look that counts, and logistic regression on "
        f"their sum"
    )
    fitted = {"slope": round(slope, 3), "bias": round(bias, 3)}
    return {"made": made, "cap": CAP} | fitted | {"weight": weight, "usual": usual}


def at_suspect(looks: Looks, model: dict) -> dict[str, float]:
    """Return how much the suspect stands out in every look."""
    suspect, _ = suspicion(looks, model)
    return {name: row[suspect] for name, row in signals(looks).items()}


def logistic(totals: list[float], labels: list[bool]) -> tuple[float, float]:
    """Return (slope, bias) of P(trapped | total) = 1 / (1 + exp(-(slope total + bias))), with clean and trapped
    teachers weighted alike. Labels are smoothed as by Platt (1999), since the totals of both may not overlap."""
    x, y = torch.tensor(totals, dtype=torch.float64), torch.tensor(labels, dtype=torch.float64)
    count = {True: y.sum().item(), False: (1 - y).sum().item()}
    wanted = torch.where(y > 0, (count[True] + 1) / (count[True] + 2), 1 / (count[False] + 2))
    weight = torch.where(y > 0, 0.5 / count[True], 0.5 / count[False])
    fitted = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    centre, spread = x.mean(), x.std()
    optimizer = torch.optim.LBFGS([fitted], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = fitted[0] * (x - centre) / spread + fitted[1]
        value = (weight * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")).sum()
        value.backward()
        return value

    optimizer.step(loss)
    slope, bias = (fitted[0] / spread).item(), (fitted[1] - fitted[0] * centre / spread).item()
    return slope, bias


def largest_over_second(values: list[float]) -> float:
    first, second = sorted(values, reverse=True)[:2]
    return first / max(second, 1e-6)


# The audit and what stands beside it: scores that are larger for trapped teachers.
SCORES: dict[str, Callable[[Audited], float]] = {
    "**audit**": lambda t: suspicion(t.looks, shipped_model())[1],
    "smallest mask (Neural Cleanse), median / smallest": lambda t: (
        median(t.looks.values["masks"]) / min(t.looks.values["masks"])
    ),
    "largest margin (MM-BD), largest / second": lambda t: largest_over_second(t.looks.values["margins"]),
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
    parser.add_argument("--fit", action="store_true", help="fit the verdict on the part to choose on")
    given = parser.parse_args()
    teachers = audited(given.out)
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
