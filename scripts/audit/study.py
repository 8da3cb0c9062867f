"""The study of the audit: how well it tells trapped teachers from clean ones, in the tables of docs/audit.md.

    python scripts/audit/study.py --out outputs/audit --fit      fit the verdict on one part of the zoo
    python scripts/audit/study.py --out outputs/audit            try it on the other part, and write the tables
    python scripts/audit/study.py --out outputs/audit --left-out fit it again without each trap, network and kind of
                                                                 images, and try it on these: on the first part alone

The teachers are those of scripts/audit/zoo.py which are finished; the others are left out. `--fit` looks at the part to
choose on only, and writes dfkd/audit/model.json. Without it, the verdict is tried on the part that was kept, and the
end of docs/audit.md is written; every such look is noted in a file beside the teachers, and their number is told.
"""

import argparse
import json
from pathlib import Path

import students
import torch
import torch.nn.functional as F
from diagram import diagram
from parts import Audited, audited, chosen
from scores import auroc, calibration
from tables import picture, tables

from dfkd.audit import Looks
from dfkd.audit.signals import SIGNALS, signals
from dfkd.audit.verdict import judge, limited, shipped_model, suspicion
from dfkd.report.text import markdown_table
from dfkd.tracker import read_rows

ROOT = Path(__file__).resolve().parents[2]
MODEL, DOC = ROOT / "dfkd" / "audit" / "model.json", ROOT / "docs" / "audit.md"
WRITTEN = "<!-- everything below is written by scripts/audit/study.py -->"
LOOKED = "looked_at_the_end.jsonl"  # a line for each look at the part that was kept
COUNTED = ("marks", "shifts", "masks", "last_layer")  # the looks that count
ROUNDS = 10  # of finding weights and suspects in turn
DECAY = 0.001  # weight of the squares of the weights in the fit
# The examples whose pictures are shown, and the names of the files.
EXAMPLES = {"140 trapped": "patch", "128 trapped": "sig", "128 twin": "clean"}


def fit(teachers: list[Audited]) -> dict:
    """Fit the numbers of the verdict: a weight of every look that counts, and a bias, by logistic regression on the
    limited signals of the suspects. The suspects depend on the weights, so both are found in turn."""
    clean = [t for t in teachers if not t.member.trapped]
    if not clean or len(clean) == len(teachers):
        raise SystemExit("study: the part to choose on needs clean and trapped teachers; train more of the zoo")
    found = [limited(signals(t.looks)) for t in teachers]
    of_classes = [
        torch.tensor([row[name] for name in COUNTED], dtype=torch.float64).T for row in found
    ]  # (classes, looks)
    weights = torch.ones(len(COUNTED), dtype=torch.float64)
    for _ in range(ROUNDS):
        suspects = torch.stack([rows[(rows @ weights).argmax()] for rows in of_classes])
        weights, bias = logistic(suspects, [t.member.trapped for t in teachers])
    fitted = dict(zip(COUNTED, weights.tolist(), strict=True))
    model = {"weight": {name: round(fitted.get(name, 0.0), 3) for name in SIGNALS}, "bias": round(bias, 3)}
    seen = [at_suspect(t.looks, model) for t in clean]
    usual = {name: round(sorted(row[name] for row in seen)[int(0.95 * (len(seen) - 1))], 2) for name in SIGNALS}
    least = round(min(t.looks.confidence for t in clean), 2)
    networks, images = (", ".join(sorted({getattr(t.member, of) for t in teachers})) for of in ("network", "domain"))
    made = (
        f"scripts/audit/study.py --fit on {len(teachers) - len(clean)} teachers that obey a trap and {len(clean)} "
        f"clean ones (networks: {networks}; images: {images}): logistic regression on the signals of the suspects"
    )
    return {"made": made} | model | {"usual": usual, "least_confidence": least}


def at_suspect(looks: Looks, model: dict) -> dict[str, float]:
    """Return how much the suspect stands out in every look."""
    suspect, _ = suspicion(looks, model)
    return {name: row[suspect] for name, row in signals(looks).items()}


def logistic(signals: torch.Tensor, labels: list[bool]) -> tuple[torch.Tensor, float]:
    """Return weights (looks,), none of them negative, and the bias of P(trapped | signals) =
    1 / (1 + exp(-(signals @ weights + bias))), with clean and trapped teachers weighted alike. Labels are smoothed as
    by Platt (1999), and large weights cost a little, since a line may separate both.

    Args:
        signals: (N, looks), float64.
    """
    y = torch.tensor(labels, dtype=torch.float64)
    count = {True: y.sum().item(), False: (1 - y).sum().item()}
    wanted = torch.where(y > 0, (count[True] + 1) / (count[True] + 2), 1 / (count[False] + 2))
    share = torch.where(y > 0, 0.5 / count[True], 0.5 / count[False])
    roots = torch.ones(signals.shape[1], dtype=torch.float64, requires_grad=True)  # of the weights
    bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([roots, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        weights = roots.square()
        entropy = F.binary_cross_entropy_with_logits(signals @ weights + bias, wanted, reduction="none")
        value = (share * entropy).sum() + DECAY * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return roots.square().detach(), bias.item()


def left_out(teachers: list[Audited]) -> str:
    """Return a table of AUROC for every trap, network and kind of images: of a verdict that was fitted without it, and
    of the shipped one. Teachers of a trap are held against all clean ones, the others against clean ones like them."""
    clean, rows = [t for t in teachers if not t.member.trapped], []
    for key, word in (("trap", "trap"), ("network", "network"), ("domain", "images")):
        for value in sorted({getattr(t.member, key) for t in teachers if t.member.trapped}):
            own = [t for t in teachers if t.member.trapped and getattr(t.member, key) == value]
            others = clean if key == "trap" else [t for t in clean if getattr(t.member, key) == value]
            models = fit([t for t in teachers if getattr(t.member, key) != value]), shipped_model()
            found = [auroc(*([suspicion(t.looks, m)[1] for t in part] for part in (own, others))) for m in models]
            rows.append([f"{word}: {value}", f"{len(own)} / {len(others)}", *(f"{score:.3f}" for score in found)])
    return markdown_table(["left out", "trapped / clean", "AUROC without it", "with it"], rows)


def count_look(file: Path, look: dict) -> int:
    """Note a look at the part to test on, and return how many different ones there were: the same verdict on the same
    teachers shows nothing new."""
    looks = read_rows(file)
    if look not in looks:
        looks.append(look)
        with file.open("a") as lines:
            lines.write(json.dumps(look) + "\n")
    return len(looks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/audit"))
    parser.add_argument("--fit", action="store_true", help="fit the verdict on the part to choose on")
    parser.add_argument("--left-out", action="store_true", help="fit it again without each trap, network, ...")
    given = parser.parse_args()
    teachers = audited(given.out)
    if given.left_out:
        print(left_out(chosen(t for t in teachers if t.to_choose)))
        return
    if given.fit:
        part = [t for t in teachers if t.to_choose]
        MODEL.write_text(json.dumps(fit(chosen(part)), indent=2) + "\n")
        shipped_model.cache_clear()
        print(f"{MODEL}: fitted\n\nThe part that it was fitted on:\n\n{tables(part)}")
        return
    count = count_look(given.out / LOOKED, {"teachers": len(teachers), "model": shipped_model()})
    text = f"{shipped_model()['made']}. Look number {count} at the part to test on.\n\n"
    kept = [t for t in teachers if not t.to_choose]
    text += tables(kept)
    found = chosen(kept)
    _, bins = calibration([judge(t.looks).probability for t in found], [t.member.trapped for t in found])
    text += f"\n\n{diagram(bins, DOC.parent / 'audit' / 'calibration.png')}"
    if inherited := students.table(kept, students.inherited(given.out)):
        text += (
            f"\n\nWhat students of these teachers inherit ({students.NETWORK}, {students.DOMAIN}, DFQ):\n\n{inherited}"
        )
    for member, name in EXAMPLES.items():
        example = next((t for t in teachers if t.member.name == member), None)
        if example is not None:
            text += f"\n\n{picture(example, DOC.parent / 'audit' / f'{name}.png')}"
    print(text)
    before, sign, _ = DOC.read_text().partition(WRITTEN)
    DOC.write_text(f"{before}{sign}\n\n{text}\n")


if __name__ == "__main__":
    main()
