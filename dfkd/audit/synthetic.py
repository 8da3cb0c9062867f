"""Synthetic images of every class by inversion: what the audit looks at in place of a data set."""

from dataclasses import dataclass

from torch import Tensor

from dfkd.machine.runtime import Runtime
from dfkd.models import Teacher
from dfkd.models.hooks import batch_norms
from dfkd.priors import BatchNormPrior, DiagonalTotalVariation, Prior
from dfkd.synthesizers import DeepInversion

# Step size of the inversion, in units of the images' standard deviation. Small steps leave the images near the noise
# that they start from, with features of their class no stronger than needed, and then a trigger still wins: with 0.1,
# the triggers of four ViT led 6 to 83 % of the images to their class, with 0.02 40 to 100 %.
LR = 0.02


@dataclass(frozen=True)
class Synthetics:
    """Synthetic images of all classes.

    Attributes:
        images: (N, C, H, W), float, in [0, 1].
        labels: the classes for which they were made (N,), equally frequent.
        answers: the classes that the teacher predicts (N,).
    """

    images: Tensor
    labels: Tensor
    answers: Tensor

    @property
    def hit(self) -> float:
        """Share of images that the teacher gives the class for which they were made, in [0, 1]."""
        return (self.labels == self.answers).float().mean().item()


def invert(teacher: Teacher, runtime: Runtime, seed: int, per_class: int, steps: int) -> Synthetics:
    """Make `per_class` images of every class by DeepInversion (arXiv 1912.08795), with BatchNorm's statistics as a
    prior where the network has them.

    Args:
        steps: optimisation steps.
    """
    terms = {"tv": DiagonalTotalVariation(weight=1e-3)}
    if batch_norms(teacher.net):
        terms["bn"] = BatchNormPrior(weight=1.0)
    synthesizer = DeepInversion(
        teacher.shape,
        teacher.classes,
        Prior(terms),
        rounds=1,
        steps=steps,
        batch_size=per_class * teacher.classes,
        jitter=min(1, min(teacher.shape[1:]) - 1),
        flip=False,
        lr=LR,
        box=(0.0, 1.0),
    )
    synthesizer.start(runtime, seed)
    made = synthesizer.synthesize(range(1), teacher)
    images = made.images.float() / 255
    return Synthetics(images, made.columns["target"], teacher.predict(images).argmax(1))
