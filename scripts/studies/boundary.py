"""Study 1: where CAKE's points lie against the teacher's boundary, on two-dimensional sets."""

import textwrap

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dfkd.domains import points
from dfkd.models import Classifier, load_classifier
from dfkd.pool import Pool
from dfkd.report.runs import Run
from dfkd.report.tables import Number
from dfkd.stages.run_figures import field_grid
from dfkd.store.store import Store
from studies.kept import derived
from studies.pages import Page, by, by_seed, summary, table
from studies.statistics import holm, p_text, paired

SIDE, PIECE = 200, 5  # the grid has SIDE x SIDE points; a piece of the plane is PIECE x PIECE of them
SHOWN = 500  # points in a panel
RECIPE = 1e-2  # class weight of CAKE's recipe for 2-D sets
SETS = ("two_moons", "circles", "checkerboard")
FLOOR, AGREEMENT = "noise_images", "grid agreement"
PLACES = {"covered": ".0f", "distance": ".2f", "near": ".0f"}  # what measure_cell finds: its form in the table


def boundary_pieces(labels: Tensor, piece: int = PIECE) -> Tensor:
    """Return which pieces of the plane the boundary runs through (S / piece, S / piece), bool: those whose grid points
    have more than one class.

    Args:
        labels: the class of every grid point (S, S); S is a multiple of `piece`.
    """
    blocks = labels.unfold(0, piece, piece).unfold(1, piece, piece).flatten(2)
    return blocks.amax(2) != blocks.amin(2)


def covered_share(pieces: Tensor, samples: Tensor, low: Tensor, high: Tensor) -> float:
    """Return the share of the boundary's pieces in which a sample lies, in percent.

    Args:
        pieces: which pieces the boundary runs through (K, K), bool.
        samples: points (N, 2).
        low, high: corners (2,) of the plane that the pieces divide.
    """
    side = len(pieces)
    place = ((samples - low) / (high - low) * side).floor().long()
    place = place[((place >= 0) & (place < side)).all(1)]
    has_sample = torch.zeros_like(pieces)
    has_sample[place[:, 0], place[:, 1]] = True
    return 100 * (has_sample & pieces).sum().item() / max(1, pieces.sum().item())


def distances(labels: Tensor, grid: Tensor, samples: Tensor) -> Tensor:
    """Return the distance of every sample (N,) to the nearest grid point whose neighbour has another class.

    Args:
        labels: (S, S).
        grid: the grid's points (S, S, 2).
        samples: (N, 2).
    """
    edge = torch.zeros_like(labels, dtype=torch.bool)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return torch.cdist(samples, grid[edge]).amin(1)


def teacher_and_pool(run: Run) -> tuple[Classifier, Pool]:
    """Read the teacher and the synthetic points of a cell from the store."""
    store = Store(run.folder.parents[1] / "store")
    teacher, pool = (store.root / stage / run.result["stages"][stage]["key"] for stage in ("teacher", "pool"))
    return load_classifier(teacher / "teacher.json"), Pool.load(pool / "pool.safetensors")


def measure_cell(run: Run) -> dict:
    """Return the share of the boundary that the points of a cell cover, and their distances to it."""
    teacher, pool = teacher_and_pool(run)
    grid = field_grid(points(run.config["ntl_scenario"]["id"]["kind"]), SIDE)
    labels = teacher.predict(grid, len(grid)).argmax(1).view(SIDE, SIDE)
    plane, samples = grid.view(SIDE, SIDE, 2), pool.pixels().flatten(1)
    apart = distances(labels, plane, samples[torch.linspace(0, len(samples) - 1, 1000).long()])
    return {
        "covered": covered_share(boundary_pieces(labels), samples, plane[0, 0], plane[-1, -1]),
        "distance": apart.median().item(),
        "near": 100 * (apart < 0.1).float().mean().item(),
        "points": len(samples),
    }


def method(run: Run) -> str:
    """Return the name of a cell's synthesizer, with the factor of CAKE's weights."""
    synthesizer = run.config["synthesizer"]
    factor = synthesizer["class_weight"] / RECIPE if synthesizer["name"] == "cake_2d" else 1
    weights = f", weights x {factor:.0f}" if factor > 1 else ""
    return f"{synthesizer['name']}{weights}" + (", no contrast" if synthesizer.get("contrast_weight") == 0 else "")


def name(run: Run) -> str:
    """Return the name of a cell's method, with the number of points."""
    return f"{method(run)}, {10_000 if sum(run.result['pool_labels']) > 1000 else 200} points"


def page(cells: list[Run]) -> Page:
    """Return a table per set, and the points of every method on the teacher's field."""
    sets = by(cells, lambda run: run.config["ntl_scenario"]["id"]["name"])
    return Page("\n\n".join(f"**{kind}**\n\n{set_table(runs)}" for kind, runs in sets.items()), picture(cells))


def set_table(cells: list[Run]) -> str:
    """Return the table of one set: a row per kind of points, with its differences to as many points of noise."""
    groups = by(cells, name)
    where, tests = {}, {}
    for label, runs in groups.items():
        where[label] = {run.seed: derived(run, "boundary", measure_cell) for run in runs}
    for label, runs in groups.items():
        control = f"{FLOOR}, {label.rpartition(', ')[2]}"
        if label == control or control not in groups:
            continue
        ours, theirs = ({seed: one["distance"] for seed, one in where[key].items()} for key in (label, control))
        tests[label, "distance"] = paired(ours, theirs)
        tests[label, AGREEMENT] = paired(by_seed(runs, AGREEMENT), by_seed(groups[control], AGREEMENT))
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))

    def entries(label: str, measure: str, form: str) -> list[str]:
        test = tests.get((label, measure))
        return ["", ""] if test is None else [test.text(form), p_text(adjusted[label, measure])]

    rows = []
    for label, runs in groups.items():
        rows.append(
            [
                label,
                len(runs),
                *(Number(tuple(one[key] for one in where[label].values()), form) for key, form in PLACES.items()),
                *(summary(runs, head) for head in (AGREEMENT, "student ID", "teacher ID")),
                *entries(label, "distance", ".2f"),
                *entries(label, AGREEMENT, ".1f"),
            ]
        )
    head = ["points", "n", "boundary covered, %", "median distance", "nearer than 0.1, %"]
    head += [AGREEMENT, "student ID", "teacher ID"]
    return table([*head, "distance - noise", "p (Holm)", f"{AGREEMENT} - noise", "p (Holm)"], rows)


def picture(cells: list[Run]) -> Figure | None:
    """Draw the first seed's points of every method with 10,000 points on the teacher's decision field, a row a set; of
    the cells whose files are here, None if there are none."""
    cells = [run for run in cells if run.folder]
    if not cells:
        return None
    first = min(run.seed for run in cells)
    shown = by([run for run in cells if run.seed == first and "10000" in name(run)], name)
    figure = Figure(figsize=(2.4 * len(shown), 7.2))
    axes = figure.subplots(len(SETS), len(shown), squeeze=False, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for column, (label, runs) in enumerate(shown.items()):
        axes[0, column].set_title(textwrap.fill(label, 26), fontsize=8)
        for run in runs:
            kind = run.config["ntl_scenario"]["id"]["name"]
            draw(axes[SETS.index(kind), column], run, kind)
    return figure


def draw(axes, run: Run, kind: str) -> None:
    teacher, pool = teacher_and_pool(run)
    grid = field_grid(points(kind), SIDE)
    field = teacher.predict(grid, len(grid)).softmax(1)[:, 1].view(SIDE, SIDE)
    x, y = grid.flatten(1).view(SIDE, SIDE, 2).unbind(2)
    axes.contourf(x.numpy(), y.numpy(), field.numpy(), levels=11, cmap="PRGn", alpha=0.8)
    samples = pool.pixels().flatten(1)
    samples = samples[torch.linspace(0, len(samples) - 1, SHOWN).long()]
    axes.scatter(*samples.T.numpy(), s=4, c="black", linewidths=0)
    axes.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()), xticks=[], yticks=[])
