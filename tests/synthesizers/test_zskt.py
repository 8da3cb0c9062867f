import pytest
import torch
import torch.nn.functional as F
from on_device import on_a_cpu

from dfkd.synthesizers import ZSKT


def test_the_loss_is_minus_the_kl_of_the_batch(build, teacher, student):
    made = build(ZSKT, adversarial=3.0)
    with torch.no_grad():
        images = made.generator.train()(made._latent(16, made.stream(0)))
        s, t = student.eval()(images), teacher(images)
    expected = -3 * F.kl_div(s.log_softmax(1), t.softmax(1), reduction="batchmean")
    metrics = build(ZSKT, adversarial=3.0).synthesize(range(1), teacher, student).metrics
    assert metrics.keys() == {"adversarial"}
    assert metrics["adversarial"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_student_that_is_the_teacher_leaves_nothing_to_find(build, teacher):
    metrics = build(ZSKT).synthesize(range(1), teacher, teacher).metrics
    assert metrics["adversarial"].item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("generator", ["dcgan", "resnet_cbn"])
def test_it_finds_images_on_which_the_student_is_ever_more_wrong(build, losses, teacher, student, generator):
    found = losses(build(ZSKT, generator=generator), 30, teacher, student)
    assert all(loss < 0 for loss in found)
    device = next(student.parameters()).device
    assert sum(found[-5:]) < on_a_cpu(device, 1.3, 1.05) * sum(found[:5])
