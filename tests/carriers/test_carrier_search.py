"""Who is carried, and how far the others are from it."""

import math

import torch
from by_hand import CLASSES, PLACE, SHAPE, TARGET

from dfkd.carriers.search import of_others


def test_a_change_is_judged_by_the_images_of_other_classes_only(search):
    one = search(False)
    _, success = one.pull(one.images.expand(CLASSES, *one.images.shape), one.answers)
    assert success.tolist() == [0, 0, 0]  # an image that keeps its class is never carried to another
    others = of_others(one.answers, one.wanted)
    assert others.sum(1).tolist() == [20, 20, 20] and not others[0][one.answers == 0].any()


def test_the_loss_is_the_mean_over_images_of_the_sum_over_models(search):
    both = search(True, False, wanted=(TARGET,))
    images = both.images.clone()
    images[:15, 0, PLACE[0], PLACE[1]] = 1.0  # half of them show the trigger
    loss, success = both.pull(images[None], both.answers)
    total, carried, count = 0.0, 0, 0
    for image, answer in zip(images, both.answers.tolist(), strict=True):
        if answer == TARGET:
            continue
        rows = [model(image[None])[0].tolist() for model in both.models]
        total += sum(math.log(sum(math.exp(v) for v in row)) - row[TARGET] for row in rows)
        carried += all(max(range(CLASSES), key=row.__getitem__) == TARGET for row in rows)
        count += 1
    assert math.isclose(loss.item(), total / count, rel_tol=1e-4) and success.item() == carried / count == 0
    alone = search(True, wanted=(TARGET,))
    assert 0 < alone.pull(images[None], alone.answers)[1].item() == 0.5  # the other teacher has no trigger


def test_a_step_sees_different_images_and_at_most_all(search):
    images, answers = search(False, batch=10).draw()
    assert images.shape == (10, *SHAPE) and len(torch.unique(images.flatten(1), dim=0)) == 10 == len(answers)
    assert len(search(False, batch=100).draw()[0]) == 30
