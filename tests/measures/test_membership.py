from dataclasses import replace

import pytest
import torch

from dfkd.domains import Images
from dfkd.measures import MembershipAUROC, MembershipTPR
from dfkd.measures.membership import auroc, member_scores, tpr_at_fpr


def test_the_auroc_is_the_share_of_pairs_in_order(random):
    members, others = (torch.randint(6, (n,), generator=random).float() for n in (40, 30))
    pairs = [(m > o) + (m == o) / 2 for m in members.tolist() for o in others.tolist()]
    assert auroc(members, others) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc(torch.ones(3), torch.zeros(4)) == 1 and auroc(torch.ones(3), torch.ones(4)) == 0.5


def test_the_rate_at_few_false_alarms_is_that_of_the_best_threshold(random):
    members, others = torch.randn(300, generator=random) + 1, torch.randn(200, generator=random)
    best = 0.0
    for threshold in [*members.tolist(), *others.tolist()]:
        if (others > threshold).float().mean() <= 0.05:
            best = max(best, (members > threshold).float().mean().item())
    assert tpr_at_fpr(members, others, 0.05) == pytest.approx(best)
    assert tpr_at_fpr(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 0.0]), 0.0) == 0.5


def test_scores_are_the_log_odds_and_order_images_as_the_loss_does(random):
    logits, labels = torch.randn(50, 4, generator=random), torch.randint(4, (50,), generator=random)
    probabilities = logits.double().softmax(1)
    for score, p in (
        ("loss", probabilities.gather(1, labels[:, None])[:, 0]),
        ("confidence", probabilities.amax(1)),
    ):
        assert torch.allclose(member_scores(logits, labels, score), (p / (1 - p)).log())


def test_scores_keep_their_order_where_the_softmax_saturates():
    sure, surer = member_scores(torch.tensor([[40.0, 0.0], [50.0, 0.0]]), torch.tensor([0, 0]), "loss")
    assert surer > sure


class Memory:
    """A model that gives training images a margin for their labels; everything else in its logits is noise."""

    def __init__(self, train: Images, margin: float):
        self.margin = margin
        self.labels = {x.cpu().numpy().tobytes(): y for x, y in zip(train.pixels(), train.y.tolist(), strict=True)}

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        logits = torch.randn(len(images), 10, generator=torch.Generator().manual_seed(len(images)))
        for row, image in zip(logits, images, strict=True):
            label = self.labels.get(image.cpu().numpy().tobytes())
            if label is not None:
                row[label] += self.margin
        return logits


def test_a_model_that_memorised_is_told_from_one_that_did_not(answered, small_digits):
    exam = answered(torch.zeros(300, 10), small_digits.test.y[:300])
    forgets, remembers = (replace(exam, model=Memory(small_digits.train, margin)) for margin in (0, 20))
    assert 0.4 < MembershipAUROC(images=400)(forgets) < 0.6 and MembershipTPR(images=400)(forgets) < 6
    assert MembershipAUROC(images=400)(remembers) > 0.99 and MembershipTPR(images=400)(remembers) > 99


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [(MembershipAUROC, {"score": "age"}), (MembershipAUROC, {"images": 0}), (MembershipTPR, {"fpr": 1})],
)
def test_impossible_options_are_refused(kind, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(**wrong)
