"""The student: its network and training options."""

from collections.abc import Callable

from torch import Tensor, nn

from dfkd.distill.feature_losses import FeatureLoss
from dfkd.models import classifier_head
from dfkd.recipe import Recipe
from dfkd.training.augment import AUGMENTATIONS

VIEWS = (*AUGMENTATIONS, "cut_mix")


class Student:
    """A student's network and training options (the configuration group `student`).

    Args:
        network: the network, trained from scratch.
        recipe: optimiser, schedule, batch size.
        loss: the loss per image: a `dfkd.distill.Loss` or any function (student logits, teacher logits) -> (B,).
        epochs: passes over a finished pool (offline synthesizers).
        steps: optimisation steps per round (online synthesizers).
        capacity: an online pool holds at most this many images and drops the oldest; None means no limit.
        keep: {column: [low, high]}: train only on those images of a finished pool whose column values (such as CAKE's
            eps) lie in these ranges.
        augment: 'none', 'shift', 'crop_flip' or 'cut_mix': a random view of every image in every step. The teacher is
            run again on the view (counted as 'distill'). A defense splits an image once, when it enters the pool. A
            view counts as robust if the teacher gives it the same label as a robust image that it was made from.
        replicas: number of students trained on the same finished pool, each with a seed and a cell of its own
            (`dfkd.config.cell.cells_of`). This object is one of them.
        samples: number of synthetic images kept with the trained student; None means as many as a figure shows.

    Raises:
        ValueError: neither epochs nor steps is given, a number is below 1, loss is not callable, a range of keep is not
            [low, high], or augment is unknown.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        loss: Callable[[Tensor, Tensor], Tensor],
        epochs: int | None = None,
        steps: int | None = None,
        capacity: int | None = None,
        keep: dict[str, list[float]] | None = None,
        augment: str = "none",
        replicas: int = 1,
        samples: int | None = None,
    ):
        if epochs is None and steps is None:
            raise ValueError("a student needs epochs (for a finished pool) or steps (a round, online)")
        counts = {"epochs": epochs, "steps": steps, "capacity": capacity, "replicas": replicas, "samples": samples}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not callable(loss):
            raise ValueError(f"loss must be a loss, as loss@student.loss=kl chooses it, got {loss!r}")
        for name, bounds in (keep or {}).items():
            if not isinstance(bounds, list | tuple) or len(bounds) != 2 or bounds[0] > bounds[1]:
                raise ValueError(f"keep.{name} must be [low, high], got {bounds}")
        if augment not in VIEWS:
            raise ValueError(f"augment must be one of {', '.join(VIEWS)}, got '{augment}'")
        self.network, self.recipe, self.loss, self.augment = network, recipe, loss, augment
        self.epochs, self.steps, self.capacity, self.keep = epochs, steps, capacity, keep or {}
        self.replicas, self.samples = replicas, samples

    @property
    def matches_features(self) -> bool:
        """Whether the loss compares penultimate features, too."""
        return isinstance(self.loss, FeatureLoss)

    def check(self, teacher: nn.Module) -> None:
        """Raise ValueError if the loss compares features, and a network has no last linear layer to take them from."""
        for whose, network in (("teacher", teacher), ("student", self.network)) if self.matches_features else ():
            try:
                classifier_head(network)
            except ValueError as error:
                raise ValueError(f"this loss compares features, and of the {whose}'s {error}") from error
