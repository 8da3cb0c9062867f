import pytest
import torch

from dfkd.domains import increment


def classes_of(images) -> list[int]:
    return images.y.unique().tolist()


def test_a_task_trains_on_its_own_classes_and_is_tested_on_all_so_far(small_digits):
    domain = increment(small_digits, task=2, tasks=5)
    assert domain.classes == 6 and domain.name == "digits_task_2" and domain.shape == small_digits.shape
    assert classes_of(domain.train) == [4, 5]
    assert classes_of(domain.val) == classes_of(domain.test) == [0, 1, 2, 3, 4, 5]
    assert (domain.mean, domain.std) == (small_digits.mean, small_digits.std)
    assert len(domain.test) == (small_digits.test.y < 6).sum()


def test_the_tasks_share_the_training_images_among_them(small_digits):
    tasks = [increment(small_digits, task).train for task in range(5)]
    assert sum(map(len, tasks)) == len(small_digits.train)
    joint = increment(small_digits, 4, joint=True).train
    assert torch.equal(joint.x, small_digits.train.x) and torch.equal(joint.y, small_digits.train.y)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"tasks": 3}, "tasks must divide the 10 classes of 'digits', got 3"), ({"task": 5}, r"in 0\.\.4, got 5")],
)
def test_impossible_chains_are_refused(small_digits, options, said):
    with pytest.raises(ValueError, match=said):
        increment(small_digits, **options)
