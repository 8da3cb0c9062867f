"""Losses that compare the penultimate features of student and teacher, beside their logits."""

from abc import abstractmethod

from torch import Tensor, nn

from dfkd.distill.losses import Loss


class FeatureLoss(Loss):
    """A loss with two terms for every image: `__call__` on the logits, and `match` on the penultimate features.

    The two terms are added. Where only logits are available (`Defense.finish`), `__call__` is used alone. The features
    are the inputs of the networks' last linear layers (`dfkd.models.watch_features`). A pool stores no features, so the
    teacher is run again on every batch; these evaluations are counted as 'distill'.
    """

    @abstractmethod
    def start(self, student: int, teacher: int) -> nn.Module:
        """Create the module that is trained together with the student and discarded afterwards; store it for `match`.

        Called once for every student, before its training, with torch's global random numbers seeded.

        Args:
            student, teacher: feature widths D_s and D_t.

        Returns:
            the module; `nn.Identity()` if there is nothing to train.
        """

    @abstractmethod
    def match(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the feature loss of every image (B,); the rules for `Loss.__call__` hold here, too.

        Args:
            student: features (B, D_s), float32.
            teacher: features (B, D_t), float32, detached.
        """


class Hint(FeatureLoss):
    """base(s, t) + weight / D_t * |r(f_s) - f_t|^2, with logits s, t and penultimate features f_s, f_t.

    The second term is the hint of FitNets (Romero et al., arXiv 1412.6550, equation 3) at the penultimate layer. It is
    trained together with the logits, not before them. r is a linear regressor if the widths differ, otherwise the
    identity. The paper sums over dimensions and halves the sum, which is weight = D_t / 2.

    Args:
        base: the loss on the logits.
        weight: weight of the feature term, at least 0.

    Raises:
        ValueError: base is not a loss, or is itself a `FeatureLoss`; or weight is negative.
    """

    def __init__(self, base: Loss, weight: float = 1.0):
        if not callable(base):
            raise ValueError(f"base must be a loss of logits (loss@student.loss.base=kl), got {base!r}")
        if isinstance(base, FeatureLoss):
            raise ValueError(f"base must be a loss of logits alone, and {type(base).__name__} compares features, too")
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        self.base, self.weight = base, weight
        self.regressor: nn.Module = nn.Identity()

    def start(self, student: int, teacher: int) -> nn.Module:
        self.regressor = nn.Identity() if student == teacher else nn.Linear(student, teacher)
        return self.regressor

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.base(student, teacher)

    def match(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.weight * (self.regressor(student) - teacher).square().mean(1)
