"""Study 8: whether a small flip radius means ID, by the judge of study 7 and on its cells."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dfkd.attacks import PGD, flip_radius
from dfkd.models import Teacher
from dfkd.report.figures import colour
from dfkd.report.runs import Run
from dfkd.report.tables import Number
from studies.judge import auroc, bench
from studies.kept import derived
from studies.pages import Page, by, table
from studies.trap_images import synthesizer, teacher

FEW = 8  # a cell with fewer images on one side of the judge has no AUROC
REAL = 200  # real test images of either domain
EPS = (2 / 255, 4 / 255, 8 / 255, 16 / 255)


def radii(model: Teacher, images: Tensor) -> Tensor:
    """Return the L-infinity radius at which PGD of 10 steps changes the label of every image (B,)."""
    generator = torch.Generator().manual_seed(0)
    attack = PGD(eps=1.0, steps=10, box=(0.0, 1.0))
    return flip_radius(attack, model, images.clamp(0, 1), model.predict(images.clamp(0, 1)), generator)


def balanced_accuracy(radius: Tensor, is_id: Tensor, eps: float) -> float:
    """Return the mean of the shares of ID images that flip below eps and of OOD images that do not, in percent."""
    flips = radius < eps
    return 50 * (flips[is_id].float().mean() + (~flips[~is_id]).float().mean()).item()


def measured(model: Teacher, images: Tensor, is_id: Tensor) -> dict[str, float]:
    """Return {measure: value} of the flip radii of ID and OOD images (B, C, H, W)."""
    radius = radii(model, images)
    found = {"auroc": auroc(-radius, is_id)}
    found |= {"id": 255 * radius[is_id].median().item(), "ood": 255 * radius[~is_id].median().item()}
    return found | {f"{255 * eps:.0f}/255": balanced_accuracy(radius, is_id, eps) for eps in EPS}


def of_synthetic(run: Run) -> dict[str, float] | None:
    """Return `measured` of a cell's images; None where the judge calls nearly all of them the same."""
    built = bench(run)
    fragile, robust = (built.samples.get(name, torch.empty(0)) for name in ("fragile", "robust"))
    if min(len(fragile), len(robust)) < FEW:
        return None
    is_id = torch.cat([torch.ones(len(fragile)), torch.zeros(len(robust))]).bool()
    return measured(built.teacher, torch.cat([fragile, robust]), is_id)


def of_real(run: Run) -> dict[str, float]:
    """Return `measured` of real test images, for the teacher of a cell."""
    built = bench(run)
    return measured(built.teacher, *built.real(REAL))


def page(cells: list[Run]) -> Page:
    """Return the AUROC of the flip radius and its accuracy at four radii, for every teacher and synthesizer."""
    rows, points = [], {}
    for kind, runs in by(cells, teacher).items():
        groups = by(runs, synthesizer)
        one_a_seed = [group[0] for group in by(runs, lambda run: run.seed).values()]  # its teacher is that of all
        rows.append(row(kind, "real test images", [derived(run, "flip_real", of_real) for run in one_a_seed]))
        for name, group in groups.items():
            every = [derived(run, "flip_synthetic", of_synthetic) for run in group]
            points[kind, name] = [found for found in every if found is not None]
            rows.append(row(kind, name, points[kind, name]))
    head = ["teacher", "images", "n", "AUROC of a small radius for ID", "median radius ID, /255", "OOD, /255"]
    head += [f"right at {255 * eps:.0f}/255, %" for eps in EPS]
    return Page(table(head, rows), picture(points))


def row(kind: str, name: str, found: list[dict[str, float]]) -> list[object]:
    measures = {"auroc": ".2f", "id": ".1f", "ood": ".1f"} | {f"{255 * eps:.0f}/255": ".0f" for eps in EPS}
    numbers = (Number(tuple(one[key] for one in found), form) for key, form in measures.items())
    return [kind, name, len(found), *numbers]


def picture(points: dict[tuple[str, str], list[dict]]) -> Figure:
    """Draw the AUROC of every cell, by teacher and synthesizer."""
    figure = Figure(figsize=(7, 3.6))
    axes = figure.subplots()
    kinds = list(dict.fromkeys(kind for kind, _ in points))
    names = list(dict.fromkeys(name for _, name in points))
    for (kind, name), found in points.items():
        x = names.index(name) + 0.15 * (kinds.index(kind) - 1)
        y = [one["auroc"] for one in found]
        axes.plot([x] * len(y), y, "o", color=colour(kinds.index(kind)), markersize=4)
    for i, kind in enumerate(kinds):
        axes.plot([], [], "o", color=colour(i), label=kind)
    axes.axhline(0.5, color="black", linestyle=":")
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set(ylabel="AUROC of a small radius for ID", xlim=(-0.5, len(names) - 0.5), ylim=(0, 1.03))
    axes.legend(fontsize=8)
    return figure
