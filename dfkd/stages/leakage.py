"""Whether synthetic images lie nearer to training than to test images. Made only if a run ends with it."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from dfkd.config.cell import Cell
from dfkd.domains import Images
from dfkd.measures.base import check_count, chosen_images
from dfkd.measures.leakage import features, measure_leakage
from dfkd.models import classifier_head
from dfkd.stages.components import Components
from dfkd.stages.stage import Log, Run, Stage
from dfkd.store.store import Artifact


class LeakageStage(Stage):
    """Compares the synthetic images with training and with test images of the ID domain (`dfkd.measures.leakage`).

    The images are those of the finished pool; of an online synthesizer, those that the student's artifact keeps
    (`student.samples`). They are compared in pixels, as they are (CAKE's may leave the box), and in
    the teacher's penultimate features if its network ends in a linear layer.

    Args:
        images: at most this many training and as many test images, chosen at random; None for all.
        pool_images: at most this many synthetic images, chosen at random; None for all.
        permutations: exchanges of training and test images, for the interval by chance.

    Raises:
        ValueError: a number is below 1.
    """

    name, inputs = "leakage", ("teacher", "pool")

    def __init__(self, images: int | None = 1000, pool_images: int | None = 2000, permutations: int = 1000):
        for name, count in (("images", images), ("pool_images", pool_images), ("permutations", permutations)):
            check_count(name, count)
        self.images, self.pool_images, self.permutations = images, pool_images, permutations

    def is_part(self, cell: Cell, components: Components) -> bool:
        return False

    def fed_by(self, cell: Cell, components: Components) -> tuple[str, ...]:
        return ("teacher", "student" if components.synthesizer.online else "pool")

    def content(self, cell: Cell, components: Components) -> dict:
        return {"options": cell.config["stages"][self.name]} | cell.content("ntl_scenario")

    def make(self, run: Run, folder: Path | None, log: Log) -> dict:
        teacher, runtime, domain = run.stage_outputs["teacher"], run.components.runtime, run.components.scenario.id
        made = synthetic_images(run)
        groups = [
            chosen_images(Images(made, torch.zeros(len(made), dtype=torch.long)), self.pool_images),
            chosen_images(domain.train, self.images),
            chosen_images(domain.test, self.images),
        ]
        spaces = {"pixels": [images.pixels().flatten(1).to(runtime.device) for images in groups]}
        if has_features(teacher.net):
            spaces["features"] = [features(teacher, images, runtime).to(runtime.device) for images in groups]
        counts = dict(zip(("pool_images", "train_images", "test_images"), map(len, groups), strict=True))
        return {space: measure_leakage(*vectors, self.permutations) for space, vectors in spaces.items()} | counts

    def load(self, run: Run, artifact: Artifact) -> dict:
        for space in ("pixels", "features"):
            if space in artifact.meta:
                run.say(f"by {space}, {in_words(artifact.meta[space])}")
        return artifact.meta


def synthetic_images(run: Run) -> Tensor:
    """Return the images of the finished pool, or the samples of an online student's artifact; on the CPU."""
    if "pool" in run.stage_outputs:
        return run.stage_outputs["pool"].images.cpu()
    student = run.store.find("student", run.planned["student"].key)
    return load_file(student.path / "samples.safetensors")["all"]


def has_features(network: torch.nn.Module) -> bool:
    """Return whether a network ends in a linear layer, whose inputs are its features."""
    try:
        classifier_head(network)
    except ValueError:
        return False
    return True


def in_words(measured: dict) -> str:
    """Return a sentence about the share of images that are nearer to training images, for the console."""
    low, high = (100 * value for value in measured["interval"])
    return (
        f"{100 * measured['nearer_train']:.1f} % of the synthetic images are nearer to a training than to a test "
        f"image; by chance {100 * measured['expected']:.1f} % ({low:.1f} to {high:.1f})"
    )
