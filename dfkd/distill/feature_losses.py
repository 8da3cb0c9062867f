"""Losses that compare the penultimate features of student and teacher, beside their logits."""

from abc import abstractmethod

from torch import Tensor, nn

from dfkd.distill.losses import Loss


class FeatureLoss(Loss):
    """A loss with two terms: `__call__` of the logits, as any loss, and `match` of the penultimate features.

    Both are added for every image. Where only logits are at hand (`Defense.finish`), the first stands alone. The
    features are those before the networks' last linear layer (`dfkd.models.watch_features`). A pool keeps no features:
    the teacher answers to every batch anew, which is counted as 'distill'.
    """

    @abstractmethod
    def start(self, student: int, teacher: int) -> nn.Module:
        """Make what is trained beside the student and thrown away after it, and keep it for `match`.

        Called once for every student, before its training, with torch's global random numbers seeded.

        Args:
            student, teacher: widths of their features.

        Returns:
            a module; `nn.Identity()` where there is nothing to train.
        """

    @abstractmethod
    def match(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of every image's features (B,); what `Loss` says of `__call__` holds here, too.

        Args:
            student: features (B, D_s), float32.
            teacher: features (B, D_t), float32, without a graph.
        """


class Hint(FeatureLoss):
    """A loss of the logits, and weight / D_t * |r(f_s) - f_t|^2 of the features f.

    The hint of FitNets (Romero et al., arXiv 1412.6550, equation 3) at the penultimate layer, trained together with the
    logits instead of before them. r is a linear regressor where the widths differ, else the identity. The paper has the
    sum over dimensions, halved: weight = D_t / 2.

    Args:
        base: the loss of the logits.
        weight: of the features.

    Raises:
        ValueError: base is no loss, or weight is negative.
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
