"""How much a cell of the field's table trains, and how fast it has computed."""

import json

from benchmark import flops

from dfkd.config.build import Builder
from dfkd.config.cell import Cell

PHASES = ("synthesis", "split", "distill")


def tflops(cell: Cell, result: dict) -> float:
    """Return 10^12 operations a second of the phases in which a student is made, at the least.

    Counted are the teacher's forward passes (its evaluations), and forward and backward passes of the student's steps.
    The gradients of images and whatever a generator computes come on top.
    """
    config, form = cell.config, json.loads((cell.folder / "student.json").read_text())
    shape = tuple(form["shape"])

    def of_an_image(whose: str, gradients_of: str = "nothing") -> float:
        builder = Builder(shape=shape, classes=form["classes"])
        network = builder.build(config[whose]["network"], f"{whose}.network")
        builder.raise_problems()
        return flops.per_image(network, shape, gradients_of)

    shown = sum(result["teacher_evals"].values())
    done = shown * of_an_image("teacher") + images_of_steps(result) * of_an_image("student", "weights")
    return done / 1e12 / sum(result["seconds"][phase] for phase in PHASES)


def images_of_steps(result: dict) -> int:
    """Return how many images the student of a result was trained on, every one as often as a step took it."""
    student = result["config"]["student"]
    if result["pool_labels"] is None:  # an online method
        return steps(result["config"])
    size = student["recipe"]["batch_size"]
    return student["epochs"] * max(1, sum(result["pool_labels"]) // size) * size


def steps(config: dict) -> float:
    """Return how many images a student is trained on, up to a factor that the sizes of a method have in common."""
    student, synthesizer = config["student"], config["synthesizer"]
    if student["steps"] is not None:
        rounds = synthesizer["rounds"] - synthesizer.get("warm_up", 0)
        return rounds * student["steps"] * student["recipe"]["batch_size"]
    return student["epochs"] * synthesizer.get("rounds", 1) * synthesizer.get("batch_size", 1)
