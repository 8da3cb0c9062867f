"""The calibration diagram of the study."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure


def diagram(bins: Sequence[tuple[float, float, int]], file: Path) -> str:
    """Draw the share of trapped teachers against the mean probability that the audit gives, save it, and return the
    Markdown that shows it.

    Args:
        bins: (mean probability, share of trapped teachers, number of teachers) of every bin (`scores.calibration`).
        file: the PNG file, in a folder beside the Markdown.
    """
    figure = Figure(figsize=(4.2, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color="#999999", linewidth=1, label="perfect")
    chances, shares, _ = zip(*bins, strict=True)
    axes.plot(chances, shares, "o-", color="#0072B2", label="audit")
    for chance, share, count in bins:
        axes.annotate(f"n = {count}", (chance, share), xytext=(6, -12), textcoords="offset points", fontsize=8)
    axes.set(xlabel="probability of a trap, by the audit", ylabel="share of trapped teachers")
    axes.set(xlim=(-0.02, 1.12), ylim=(-0.08, 1.05))
    axes.legend(loc="upper left", fontsize=8)
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=110)
    return f"![calibration: the share of trapped teachers against the probability]({file.parent.name}/{file.name})"
