"""Membership inference: can one tell from a model's answers which images its teacher was trained on?

The attack is a threshold on the loss of an image (Yeom et al., CSF 2018, arXiv 1709.01604), or on the model's
confidence. Its quality is read where false alarms are rare, as Carlini et al. (S&P 2022, arXiv 2112.03570) ask for: an
attack that names a few members with certainty is a leak, though its AUROC may be close to that of guessing.
"""

import torch
from torch import Tensor

from dfkd.evaluate import predictions
from dfkd.measures.base import Measure, check_count, chosen_images
from dfkd.measures.roc import auroc, tpr_at_fpr
from dfkd.metrics import Exam

SCORES = ("loss", "confidence")


def member_scores(logits: Tensor, labels: Tensor, score: str) -> Tensor:
    """Return a score (N,) that is larger for members: log(p / (1 - p)) of a probability p.

    With score='loss', p is the probability of the true label, so that the order is that of the negative cross-entropy;
    with 'confidence' it is the largest probability. The logarithm of the odds keeps the order where p rounds to 1.

    Args:
        logits: (N, classes).
        labels: true labels (N,).
        score: 'loss' or 'confidence'.
    """
    logits = logits.double()
    chosen = (labels if score == "loss" else logits.argmax(1))[:, None]
    others = logits.scatter(1, chosen, -torch.inf)
    return logits.gather(1, chosen)[:, 0] - others.logsumexp(1)


class MembershipAttack(Measure):
    """Scores of members (ID training images) and of others (ID images of the split, which no training has seen).

    Args:
        score: 'loss' or 'confidence'; see `member_scores`.
        images: at most this many images of each kind, the same ones for every model; None for all.

    Raises:
        ValueError: score is unknown, or images < 1.
    """

    def __init__(self, score: str = "loss", images: int | None = 2000):
        check_count("images", images)
        if score not in SCORES:
            raise ValueError(f"score must be one of {', '.join(SCORES)}, got '{score}'")
        self.score, self.images = score, images

    def _scores(self, exam: Exam) -> tuple[Tensor, Tensor]:
        """Return the scores of members (M,) and of others (N,)."""
        groups = (chosen_images(images, self.images) for images in (exam.scenario.id.train, exam.id.images))
        return tuple(
            member_scores(predictions(exam.model, images, exam.runtime), images.y, self.score) for images in groups
        )


class MembershipAUROC(MembershipAttack):
    """AUROC of a membership attack on the model, in [0, 1]; 0.5 is guessing. Options: see `MembershipAttack`."""

    def __call__(self, exam: Exam) -> float:
        return auroc(*self._scores(exam))


class MembershipTPR(MembershipAttack):
    """Share of the members, in percent, that a membership attack on the model names at a given rate of false alarms.

    A model that leaks nothing has the rate of false alarms itself. With fewer than 1 / fpr other images no false alarm
    is allowed.

    Args:
        fpr: share of the others, in [0, 1), that the attack may call members.
        score, images: see `MembershipAttack`.

    Raises:
        ValueError: fpr is outside [0, 1), score is unknown, or images < 1.
    """

    def __init__(self, fpr: float = 0.01, score: str = "loss", images: int | None = 2000):
        super().__init__(score, images)
        if not 0 <= fpr < 1:
            raise ValueError(f"fpr must lie in [0, 1), got {fpr}")
        self.fpr = fpr

    def __call__(self, exam: Exam) -> float:
        return 100 * tpr_at_fpr(*self._scores(exam), self.fpr)
