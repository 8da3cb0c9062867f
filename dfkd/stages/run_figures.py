"""Figures of a run: training curves, and a figure of the synthetic examples (`Modality.figure`)."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dfkd.domains import Domain
from dfkd.machine.environment import ignore_matplotlibrc
from dfkd.metrics import Metric
from dfkd.models import Classifier

ignore_matplotlibrc()

# One colour per concept in all figures (Okabe and Ito's palette, which colour-blind readers can distinguish).
COLOURS = {"teacher": "#000000", "id": "#0072B2", "ood": "#D55E00", "fragile": "#009E73", "robust": "#CC79A7"}
OF_METRICS = {
    key: COLOURS[idea] for key, idea in (("iacc", "id"), ("asr", "ood"), ("olacc", "ood"), ("oacc", "robust"))
}
OTHERS = ("#56B4E9", "#E69F00", "#009E73", "#8C6BB1")  # colours for all other metrics, in turn

MARGINS = {"left": 0.04, "right": 0.99, "bottom": 0.08, "top": 0.92}


def show_images(axes, images: Tensor, title: str, columns: int = 8) -> None:
    """Draw images (N, C, H, W) as a grid. If values are outside of [0, 1], the range between the 1st and the 99th
    percentile of all values is rescaled to [0, 1], and the title gives that range."""
    if images.min() < -1e-3 or images.max() > 1 + 1e-3:
        low, high = np.percentile(images.numpy(), [1, 99])
        images = (images - low) / max(high - low, 1e-6)
        title += f"\n(values {low:.1f} to {high:.1f})"
    images = images.clamp(0, 1)
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    canvas = torch.ones(rows * (height + 1) - 1, columns * (width + 1) - 1, channels)
    for i, image in enumerate(images):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    axes.imshow(canvas.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def sample_grid(images: Tensor, title: str, path: Path) -> None:
    """Draw up to 64 images (N, C, H, W) as one grid into a PNG file."""
    figure = Figure(figsize=(4, 4.4))
    show_images(figure.add_axes((0.01, 0.01, 0.98, 0.9)), images, title)
    draw(figure, path, dpi=150)


def draw(figure: Figure, path: Path, dpi: int) -> None:
    """Draw a figure into a PNG file. Callers set its margins, since to compute them takes longer than the rest."""
    figure.savefig(path, dpi=dpi)


def training_curves(rows: list[dict], teacher: dict, metrics: Iterable[Metric], path: Path) -> None:
    """Plot validation metrics and losses of the student over the rounds into a PNG file.

    Metrics in percent share one plot. Other metrics, which only a user adds, have a plot of their own.

    Args:
        rows: rows of metrics.jsonl.
        teacher: {metric: value} of the teacher on test images, drawn as dotted lines.
        metrics: the metrics of the run; only headline metrics are plotted.
        path: the PNG file.
    """
    rows = [row for row in rows if row["stage"] == "student"]
    checks = [row for row in rows if "val/iacc" in row]
    shown = [metric for metric in metrics if metric.headline and any(f"val/{metric.key}" in row for row in checks)]
    others = [metric for metric in shown if metric.form != "percent"]
    figure = Figure(figsize=(9 + 4.5 * bool(others), 3.6))
    spread = MARGINS | {"left": 0.075, "right": 0.93, "bottom": 0.13}
    left, *middle, right = figure.subplots(1, 2 + bool(others), gridspec_kw=spread)
    further = itertools.cycle(OTHERS)
    for metric in shown:
        axes = middle[0] if metric in others else left
        _curve(axes, metric, checks, teacher.get(metric.key), OF_METRICS.get(metric.key) or next(further))
    left.set(ylabel="%", ylim=(-3, 103))
    for name in sorted({key for row in rows for key in row if key.startswith("loss/")}):
        right.plot([r["step"] for r in rows if name in r], [r[name] for r in rows if name in r], label=name[5:])
    shares = [(row["step"], row["fragile_share"]) for row in rows if "fragile_share" in row]
    if shares:
        twin = right.twinx()
        twin.plot(*zip(*shares, strict=True), color=COLOURS["fragile"], linewidth=0.8, alpha=0.6)
        twin.set(ylabel="fragile share", ylim=(-0.03, 1.03))
    titles = ("student on validation images (dotted: teacher on test)", "student's loss terms", "other metrics")
    for axes, title in zip((left, right, *middle), titles, strict=False):
        axes.set_xlabel("round")
        axes.set_title(title, fontsize=10)
        axes.legend(fontsize=8)
    draw(figure, path, dpi=120)


def _curve(axes, metric: Metric, checks: list[dict], of_teacher: float | None, colour: str) -> None:
    """Plot one metric of the student over the rounds, and the teacher's value as a dotted line."""
    points = [(row["step"], row[f"val/{metric.key}"]) for row in checks if f"val/{metric.key}" in row]
    axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=metric.about)
    if of_teacher is not None:
        axes.axhline(of_teacher, color=colour, linestyle=":", linewidth=1)


def field_grid(domain: Domain, side: int = 200) -> Tensor:
    """Return the points of a regular grid that covers a 2-D domain's training data with a margin of 0.2, as examples
    (side * side, C, H, W)."""
    x = domain.train.pixels().flatten(1)
    low, high = x.amin(0) - 0.2, x.amax(0) + 0.2
    axes = [torch.linspace(low[i].item(), high[i].item(), side) for i in range(2)]
    return torch.cartesian_prod(*axes).view(-1, *domain.shape)


def decision_fields(teacher: Classifier, student: Classifier, domain: Domain, samples: Tensor, path: Path) -> None:
    """Draw CAKE's figure for a 2-D domain into a PNG file: decision fields with points on them.

    The three panels show teacher and real data, teacher and synthetic samples, student and real data.
    """
    grid, count = field_grid(domain), 500
    data, labels = domain.train.pixels(slice(0, count)).flatten(1), domain.train.y[:count]
    device = teacher.mean.device
    answers = teacher.predict(samples[-count:].to(device)).argmax(1).cpu()
    panels = (
        (teacher, data, labels, "teacher and real data"),
        (teacher, samples[-count:].flatten(1).cpu(), answers, "teacher and synthetic samples"),
        (student, data, labels, "student and real data"),
    )
    figure = Figure(figsize=(11, 3.9))
    points, side = grid.flatten(1), int(len(grid) ** 0.5)
    for axes, (model, x, y, title) in zip(figure.subplots(1, 3, gridspec_kw=MARGINS), panels, strict=True):
        p = model.predict(grid.to(device), 10_000).softmax(1).cpu()
        # for two classes the probability of the second one, for more the predicted class, scaled to [0, 1]
        field = p[:, 1] if p.shape[1] == 2 else p.argmax(1).float() / (p.shape[1] - 1)
        surface = [part.view(side, side).numpy() for part in (points[:, 0], points[:, 1], field)]
        axes.contourf(*surface, levels=11, cmap="PRGn", alpha=0.8)
        colours = y.float() / max(1, p.shape[1] - 1)
        dots = [part.numpy() for part in (x[:, 0], x[:, 1])]
        axes.scatter(*dots, c=colours.numpy(), cmap="PRGn", s=9, edgecolors="black", linewidths=0.3)
        left, low, right, high = (*points.amin(0).tolist(), *points.amax(0).tolist())
        axes.set(title=title, xlim=(left, right), ylim=(low, high))
    draw(figure, path, dpi=130)


def projection(teacher: Classifier, domain: Domain, samples: Tensor, path: Path) -> None:
    """Draw real and synthetic examples, projected on the first two principal components of the real ones, into a PNG
    file. The colour is the class that the teacher predicts."""
    real = domain.train.pixels(slice(0, 500))
    mean = real.flatten(1).mean(0)
    plane = torch.linalg.svd(real.flatten(1) - mean, full_matrices=False).Vh[:2].T
    figure = Figure(figsize=(7.4, 3.9))
    both = figure.subplots(1, 2, sharex=True, sharey=True, gridspec_kw=MARGINS | {"left": 0.06})
    for axes, x, title in zip(both, (real, samples), ("real", "synthetic"), strict=True):
        across, up = ((x.flatten(1).cpu() - mean) @ plane).T.numpy()
        answers = teacher.predict(x).argmax(1).cpu().numpy()
        axes.scatter(across, up, c=answers, cmap="turbo", s=9, vmin=0, vmax=teacher.classes - 1)
        axes.set_title(f"{title} {domain.modality.name}, by the teacher's class", fontsize=9)
    draw(figure, path, dpi=130)
