"""The tables and pictures of the study, as Markdown."""

from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from parts import Audited, chosen
from PIL import Image
from safetensors.torch import load_file
from scores import auroc, calibration, caught, interval

from dfkd.audit import headline
from dfkd.audit.pictures import grid, heat
from dfkd.audit.signals import signals
from dfkd.audit.verdict import judge, shipped_model, suspicion
from dfkd.report.text import markdown_table


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
    "smallest shift": lambda t: max(signals(t.looks)["shifts"]),
    "fewest pixels": lambda t: max(signals(t.looks)["marks"]),
    "images that mean nothing, attacked (TRODO)": lambda t: t.baselines["trodo"],
    "BatchNorm's running variances": lambda t: t.baselines["batch_norm"],
}


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
    """Return all teachers, and those of each kind of trap, network and domain, in words."""
    found: dict[str, list[Audited]] = {}
    for t in teachers:
        for name in (f"trap: {t.member.trap}", f"network: {t.member.network}", f"images: {t.member.domain}"):
            found.setdefault(name, []).append(t)
    return {"all": teachers} | dict(sorted(found.items()))


def tables(teachers: list[Audited]) -> str:
    """Return the tables of docs/audit.md for a part of the zoo, as Markdown. Clean teachers are those of the same row,
    and for a trap all of them."""
    kept = chosen(teachers)
    every = [t for t in kept if not t.member.trapped]
    head = ["", "trapped / clean", "AUROC (95 %)", "caught at 1 % FPR", "at 5 %"]
    scores, parts = [], []
    for name, score in SCORES.items():
        try:
            trapped, clean = ([score(t) for t in kept if t.member.trapped is is_in] for is_in in (True, False))
        except KeyError:  # scripts/audit/baselines.py has not seen all of them
            continue
        scores.append(row(name, trapped, clean))
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
    caught_ones = [(a, t) for a, t in zip(answers, kept, strict=True) if t.member.trapped and a.kind is not None]
    right = sum(answer.kind in t.member.kinds for answer, t in caught_ones)
    seconds = [t.seconds for t in teachers]
    left = sum(t.member.trapped and not t.obeyed for t in teachers)
    return "\n\n".join(
        [
            markdown_table(["score", *head[1:]], scores),
            markdown_table(["teachers", *head[1:]], parts),
            markdown_table(["", "trapped", "cannot tell", "not trapped"], [["trapped", *said[0]], ["clean", *said[1]]]),
            markdown_table(["mean probability", "share of trapped", "teachers"], diagram),
            f"Calibration error {error:.3f}. The taught class is named for {sum(named)} of {len(named)} teachers that "
            f"have one, and the kind of the trap is right for {right} of {len(caught_ones)} that are called trapped. "
            f"{of_neighbours(kept)}"
            f"{left} teachers that do not obey their trap are left out. An audit took "
            f"{median(seconds):.0f} s (median) and at most {max(seconds):.0f} s.",
        ]
    )


def of_neighbours(teachers: list[Audited]) -> str:
    """Say whether teachers that unlearned a neighbouring domain run to the class that the audit suspects there."""
    there = [t for t in teachers if t.member.trapped and "class" in t.outside]
    if not there:
        return ""
    shares = sorted(t.outside["share"] for t in there)
    named = sum(judge(t.looks).suspect == t.outside["class"] for t in there)
    return (
        f"Of {len(there)} that are firmly wrong on a neighbouring domain, the suspect is the most frequent answer "
        f"there for {named}, to {median(shares):.0f} % of the images ({shares[0]:.0f} to {shares[-1]:.0f}). "
    )


def picture(teacher: Audited, file: Path) -> str:
    """Save the pictures of an example, and return the Markdown that shows them.

    Args:
        file: the PNG file, in a folder beside the Markdown.
    """
    suspect, shown = judge(teacher.looks).suspect, load_file(teacher.folder / "pictures.safetensors")
    mask, pattern = shown["mask"][suspect], shown["pattern"][suspect]
    own = shown["images"][torch.tensor(teacher.looks.labels) == suspect][:2]
    parts = [*own, heat(mask[0]), mask * pattern, 0.5 + shown["mark"][suspect] / 2, 0.5 + 2 * shown["shift"][suspect]]
    sheet = grid(torch.stack([part.expand(3, -1, -1) for part in parts]), len(parts))
    pixels = (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).resize((pixels.shape[1] * 6, pixels.shape[0] * 6), Image.Resampling.NEAREST).save(file)
    m, verdict = teacher.member, judge(teacher.looks)
    what = f"{m.trap}, class {m.target}" if m.trapped else "clean"
    return f"**{what} ({m.network}, {m.domain})**: {headline(verdict)}\n\n![{what}]({file.parent.name}/{file.name})"
