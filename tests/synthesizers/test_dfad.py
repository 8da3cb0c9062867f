import pytest
import torch

from dfkd.distill import L1
from dfkd.synthesizers import DFAD
from dfkd.synthesizers.adversarial import adversarial_l1


@pytest.mark.parametrize("weights", [None, [1.0, 0.0, 0.5, 1.0]])
def test_the_adversarial_term_is_minus_the_weighted_mean_distance(random, weights):
    s, t = torch.randn(2, 4, 3, generator=random, dtype=torch.float64)
    distance = [
        sum(abs(a - b) for a, b in zip(x, y, strict=True)) / 3 for x, y in zip(s.tolist(), t.tolist(), strict=True)
    ]
    expected = -sum(w * d for w, d in zip(weights or [1.0] * 4, distance, strict=True)) / 4
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    assert adversarial_l1(s, t, given).item() == pytest.approx(expected, rel=1e-9)


def test_generator_and_student_play_for_the_same_number(build, teacher, student):
    made = build(DFAD, adversarial=2.0)
    with torch.no_grad():
        images = made.generator.train()(made._latent(16, made.stream(0)))
        distance = L1()(student.eval()(images), teacher(images)).mean()
    metrics = build(DFAD, adversarial=2.0).synthesize(range(1), teacher, student).metrics
    assert metrics["adversarial"].item() == pytest.approx(-2 * distance.item(), rel=1e-4)


@pytest.mark.parametrize("generator", ["dcgan", "resnet_cbn"])
def test_it_finds_images_on_which_the_logits_are_ever_further_apart(build, losses, teacher, student, generator):
    found = losses(build(DFAD, generator=generator), 30, teacher, student)
    assert all(loss < 0 for loss in found)
    assert sum(found[-5:]) < 1.1 * sum(found[:5])
