import pytest
import torch

from dfkd.defenses import Criterion, Defense, Observe, Oracle
from dfkd.domains import Images
from dfkd.pool import Split


class Second(Criterion):
    """Every second image is fragile."""

    def split(self, teacher, images, logits, generator):
        teacher.predict(images)
        return Split(torch.arange(len(images)) % 2 == 0, torch.zeros(len(images)))

    def warnings(self):
        return ["beware"]


def test_it_splits_as_its_criterion_and_changes_nothing_else(linear, random):
    teacher, observe = linear([[1.0, 0.0], [0.0, 1.0]]), Observe(Second())
    images = torch.rand(6, *teacher.shape, generator=random)
    split = observe.split(teacher, images, teacher.predict(images), random)
    assert split.fragile.tolist() == [True, False] * 3 and observe.warnings() == ["beware"]
    divergence = torch.arange(6.0)
    assert observe.loss(None, None, divergence, split.fragile) == Defense().loss(None, None, divergence, split.fragile)
    assert observe.steer(teacher, random) is None and not observe.makes_views and observe.mean_loss
    assert observe.radius is None, "no attack of a defense, so the premise is not measured"


def test_what_it_asks_of_the_teacher_counts_for_no_method(linear, random):
    teacher = linear([[1.0, 0.0], [0.0, 1.0]])
    images = torch.rand(6, *teacher.shape, generator=random)
    logits, before = teacher.predict(images), teacher.evals.copy()
    Observe(Second()).split(teacher, images, logits, random)
    assert dict(teacher.evals - before) == {"other": 6}


def test_a_judge_that_has_seen_real_images_is_no_data_free_method(small_digits):
    real = small_digits.train.take(slice(0, 20))
    assert Observe(Oracle(real, Images(255 - real.x, real.y), value=0.0)).uses_real_data
    assert not Observe(Second()).uses_real_data


def test_what_its_criterion_cannot_work_with_is_refused(small_digits):
    real = small_digits.train.take(slice(0, 20))
    judge = Oracle(real, Images(255 - real.x, real.y), value=0.0)
    with pytest.raises(ValueError, match="needs the teacher's features"):
        Observe(judge).check(torch.nn.Flatten(), None)
