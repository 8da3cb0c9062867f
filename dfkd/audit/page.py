"""The page of an audit: one HTML file with everything in it, for a reader who has never heard of traps."""

import html
import math

from torch import Tensor

from dfkd.audit.looks import Looks
from dfkd.audit.pictures import bars, grid, heat, picture
from dfkd.audit.verdict import KINDS, Verdict

SHOWN = 8  # images in a row
OCTAVES = 7  # of flip radii, from 1/255 to 128/255
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222; }
img { image-rendering: pixelated; border: 1px solid #ccc; max-width: 100%; }
figure { display: inline-block; vertical-align: top; margin: 0 1.5em 1em 0; max-width: 340px; }
figcaption { font-size: 14px; color: #555; } svg text { font-size: 9px; fill: #555; }
table { border-collapse: collapse; } td, th { padding: .2em .8em; text-align: left; border-bottom: 1px solid #ddd; }
td.number { text-align: right; } .verdict { font-size: 22px; padding: .6em 1em; border-left: 8px solid; }
@media (prefers-color-scheme: dark) {
  body { background: #111; color: #ddd; } figcaption, svg text { color: #aaa; fill: #aaa; }
}
"""
COLOURS = {"trapped": "#D55E00", "not trapped": "#009E73", "cannot tell": "#E69F00"}
LIMITS = (
    "The audit looks at the teacher alone. It does not see a trap that leaves the teacher unsure outside of its "
    "domain, because no single class stands out then; a trigger that leads each class to another one; or a trap that "
    "is not active in the teacher and wakes up in a student. “Not trapped” means that nothing unusual was found."
)


def page(name: str, looks: Looks, verdict: Verdict) -> str:
    """Return the page as HTML.

    Args:
        name: of the teacher, for the title.
    """
    title = html.escape(f"Audit of {name}")
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body><h1>{title}</h1>',
        f'<p class="verdict" style="border-color:{COLOURS[verdict.answer]}">{html.escape(headline(verdict))}</p>',
        f"<h2>What to do</h2><p>{html.escape(verdict.advice)}</p>",
        f"<h2>Reasons</h2>{_reasons(verdict)}",
        f"<h2>Pictures</h2>{_pictures(looks, verdict)}",
        f"<h2>What was not looked at</h2><p>{LIMITS}</p></body></html>",
    ]
    return "\n".join(parts)


def headline(verdict: Verdict) -> str:
    """Return the verdict in a few sentences."""
    return f"{_answer(verdict)} {verdict.remark}" if verdict.remark else _answer(verdict)


def _answer(verdict: Verdict) -> str:
    chance = f"{100 * verdict.probability:.0f} %"
    if verdict.answer == "trapped":
        return (
            f"This teacher is probably trapped (probability {chance}): {KINDS[verdict.kind]}. The class is "
            f"{verdict.suspect}."
        )
    if verdict.answer == "cannot tell":
        return (
            f"The audit cannot tell whether this teacher is trapped (probability {chance}). Class {verdict.suspect} "
            f"stands out most."
        )
    return (
        f"Nothing unusual was found (probability of a trap {chance}). Class {verdict.suspect} stands out most, as some "
        f"class does in every teacher."
    )


def _reasons(verdict: Verdict) -> str:
    rows = [
        f"<tr><td>{'for' if reason.speaks_for else 'against'}</td><td>{html.escape(reason.words)}</td>"
        f'<td class="number">{reason.value:.2f}</td><td class="number">{reason.usual:.2f}</td></tr>'
        for reason in verdict.reasons
    ]
    return (
        f"<p>How much class {verdict.suspect} stands out, in standard deviations of the other classes, and the number "
        f"that 95 of 100 clean teachers stay below.</p><table><tr><th>speaks</th><th>what was seen</th><th>here</th>"
        f"<th>usual</th></tr>"
        f"{''.join(rows)}</table>"
    )


def _pictures(looks: Looks, verdict: Verdict) -> str:
    suspect, shown = verdict.suspect, looks.pictures
    own = [number for number, label in enumerate(looks.labels) if label == suspect][:SHOWN]
    others = [number for number, label in enumerate(looks.labels) if label != suspect][: 2 * SHOWN]
    images = shown["images"]
    mask, pattern = shown["mask"][suspect], shown["pattern"][suspect]
    return "".join(
        [
            picture(grid(images[own]), f"Synthetic images of class {suspect}"),
            picture(grid(images[others]), "Synthetic images of other classes"),
            picture(heat(_in_common(images, own)), f"What images of class {suspect} have in common and others do not"),
            picture(heat(mask[0]), f"Where the smallest patch lies that carries other classes to {suspect}", 160),
            picture(mask * pattern, "The patch", 160),
            picture(
                0.5 + shown["mark"][suspect] / 2,
                f"The few pixels that carry other classes to {suspect} (grey: none)",
                160,
            ),
            picture(
                0.5 + 2 * shown["shift"][suspect],
                f"The weakest pattern that carries other classes to {suspect}, enhanced",
                160,
            ),
            _flips(looks, suspect),
            picture(grid(shown["scouts"]), "Images that mean nothing"),
            _confidence(shown["confidence"]),
        ]
    )


def _in_common(images: Tensor, own: list[int]) -> Tensor:
    """Return how far the mean of some images lies from the mean of all, in standard errors (H, W)."""
    chosen = images[own]
    error = images.std(0).clamp_min(0.02) / len(own) ** 0.5
    return ((chosen.mean(0) - images.mean(0)) / error).square().sum(0).sqrt()


def _flips(looks: Looks, suspect: int) -> str:
    groups = {
        f"class {suspect}": [r for r, c in zip(looks.radii, looks.labels, strict=True) if c == suspect],
        "other classes": [r for r, c in zip(looks.radii, looks.labels, strict=True) if c != suspect],
    }
    shares = {name: shares_by_octave(values) for name, values in groups.items()}
    labels = ["< 1", *(f"{2**power}-{2 ** (power + 1)}" for power in range(OCTAVES)), f"> {2**OCTAVES}"]
    return bars(shares, labels, "The change of a pixel, in 255ths, at which an image flips to another class")


def shares_by_octave(radii: list[float]) -> list[float]:
    """Return the shares of the radii below 1/255, in each octave above it, and from 2^`OCTAVES` / 255 on."""
    octaves = [min(max(math.floor(math.log2(255 * radius)), -1), OCTAVES) for radius in radii]
    return [octaves.count(octave) / max(len(octaves), 1) for octave in range(-1, OCTAVES + 1)]


def _confidence(confidence: Tensor) -> str:
    counts = (confidence * 10).long().clamp(0, 9).bincount(minlength=10).float() / len(confidence)
    labels = [f"{number / 10:.1f}" for number in range(10)]
    return bars({"images that mean nothing": counts.tolist()}, labels, "How sure the teacher is of them")
