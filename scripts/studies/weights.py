"""Study 6: how sensitive CAKE is to its weights and schedules, with a response surface over three weights."""

from itertools import combinations

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from dfkd.report.runs import Run
from studies.pages import Page, by, compare, summary, table
from studies.statistics import holm, p_text

# {weight: (its path, its values; the middle one is the preset's)}
WEIGHTS = {
    "class": ("synthesizer.class_weight", (1e2, 1e3, 1e4)),
    "contrast": ("synthesizer.contrast_weight", (1, 10, 100)),
    "TV": ("prior.tv.weight", (1e4, 1e5, 1e6)),
}
SHIPPED = "decay_linear, 2 decades"


def weights_of(run: Run) -> tuple[float, ...]:
    config = run.config
    synthesizer = config["synthesizer"]
    return synthesizer["class_weight"], synthesizer["contrast_weight"], config["prior"]["tv"]["weight"]


def schedule_of(run: Run) -> str:
    noise = run.config["noise"]
    return noise["name"] + (f", {noise['decades']} decades" if "decades" in noise else "")


def response_surface(
    levels: np.ndarray, y: np.ndarray, names: list[str]
) -> tuple[list[tuple[str, float, float]], float]:
    """Fit y = b0 + sum_i b_i x_i + sum_i b_ii x_i^2 + sum_{i<j} b_ij x_i x_j by least squares.

    Args:
        levels: x (N, F), every factor in -1, 0, 1.
        y: the observations (N,).
        names: of the F factors.

    Returns:
        ([(term, coefficient, p of its t-test)], share of the variance of y that the surface explains).

    Raises:
        ValueError: the observations do not determine all coefficients.
    """
    terms = {name: levels[:, i] for i, name in enumerate(names)}
    terms |= {f"{name}²": levels[:, i] ** 2 for i, name in enumerate(names)}
    terms |= {f"{names[i]} x {names[j]}": levels[:, i] * levels[:, j] for i, j in combinations(range(len(names)), 2)}
    x = np.column_stack([np.ones(len(y)), *terms.values()])
    b, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    residual, freedom = y - x @ b, len(y) - x.shape[1]
    if rank < x.shape[1] or freedom < 1:
        raise ValueError(f"{len(y)} cells do not determine a response surface of {x.shape[1]} coefficients")
    error = np.sqrt(np.diag(np.linalg.inv(x.T @ x)) * (residual @ residual) / freedom)
    p = 2 * stats.t.sf(np.abs(b / error), freedom)
    explained = 1 - (residual @ residual) / ((y - y.mean()) @ (y - y.mean()))
    return list(zip(terms, b[1:].tolist(), p[1:].tolist(), strict=True)), explained


def page(cells: list[Run]) -> Page:
    """Return the mean at every value of a weight, the surface, the schedules, and the grid as maps."""
    known = [values for _, values in WEIGHTS.values()]  # cells with other values are no part of the study
    cells = [r for r in cells if all(w in of for w, of in zip(weights_of(r), known, strict=True))]
    grid = [run for run in cells if schedule_of(run) == SHIPPED]
    middle = tuple(values[1] for _, values in WEIGHTS.values())
    schedules = by([run for run in cells if weights_of(run) == middle], schedule_of)
    schedules = {SHIPPED: schedules.pop(SHIPPED)} | schedules
    steps = compare(schedules, ["student ID", "agreement", "teacher ID"], SHIPPED, ["student ID"])
    return Page(f"{levels(grid)}\n\n{surface(grid)}\n\nStep sizes, with the shipped weights:\n\n{steps}", picture(grid))


def levels(grid: list[Run]) -> str:
    """Return student ID at every value of a weight, over all values of the others."""
    rows = [
        [
            f"{name}: {path}",
            *(summary([run for run in grid if weights_of(run)[i] == value], "student ID") for value in values),
        ]
        for i, (name, (path, values)) in enumerate(WEIGHTS.items())
    ]
    head = "Student ID at the three values of each weight, over all values of the others:"
    return f"{head}\n\n{table(['weight', 'low', 'shipped', 'high'], rows)}"


def surface(grid: list[Run]) -> str:
    """Return the response surface of student ID as a table."""
    places = [
        [values.index(w) - 1 for w, (_, values) in zip(weights_of(run), WEIGHTS.values(), strict=True)] for run in grid
    ]
    y = np.array([run.result["student"]["iacc"] for run in grid])
    try:
        fitted, explained = response_surface(np.array(places, dtype=float), y, list(WEIGHTS))
    except ValueError as error:
        return f"No response surface: {error}."
    adjusted = holm([p for _, _, p in fitted])
    rows = [[term, f"{b:+.1f}", p_text(p), p_text(q)] for (term, b, p), q in zip(fitted, adjusted, strict=True)]
    return (
        f"Response surface, x = -1, 0, 1 for low, shipped, high; it explains {100 * explained:.0f} % of the variance "
        f"of {len(grid)} cells:\n\n{table(['term', 'points a step of its grid', 'p', 'p (Holm)'], rows)}"
    )


def picture(grid: list[Run]) -> Figure:
    """Draw mean student ID by class and contrast weight, a map for every TV weight."""
    (_, rows), (_, columns), (_, maps) = WEIGHTS.values()
    figure = Figure(figsize=(9, 3))
    for axes, tv in zip(figure.subplots(1, 3), maps, strict=True):
        mean = [
            [summary([r for r in grid if weights_of(r) == (a, b, tv)], "student ID").mean for b in columns]
            for a in rows
        ]
        axes.imshow(np.array(mean, dtype=float), vmin=10, vmax=100, cmap="viridis", origin="lower")
        for i, row in enumerate(mean):
            for j, value in enumerate(row):
                if value is not None:
                    axes.text(j, i, f"{value:.0f}", ha="center", va="center", color="white" if value < 70 else "black")
        axes.set_xticks(range(3), [f"{b:g}" for b in columns])
        axes.set_yticks(range(3), [f"{a:g}" for a in rows])
        axes.set(xlabel="contrast weight", ylabel="class weight", title=f"TV weight {tv:g}")
    return figure
