"""Class-incremental tasks: the classes of a domain arrive a few at a time."""

import torch

from dfkd.domains.base import Domain, Images


def increment(of: Domain, task: int = 0, tasks: int = 5, joint: bool = False) -> Domain:
    """Return the domain of one task of a chain: it has the classes of this task and of all tasks before it.

    The K classes of `of` are divided, in order, into tasks of K / tasks classes. The training split holds images of
    this task's classes alone, because those of earlier tasks are gone. Validation and test images are of all classes so
    far. Mean and std are those of `of` in every task, so that a network can go on from the last task's weights.

    Args:
        of: the domain to divide.
        task: number of the task, in 0 .. tasks - 1.
        tasks: number of tasks, a divisor of K.
        joint: keep the training images of earlier tasks, too: the upper bound of continual learning.

    Raises:
        ValueError: tasks does not divide the classes, or task is out of range.
    """
    if tasks < 1 or of.classes % tasks:
        raise ValueError(f"tasks must divide the {of.classes} classes of '{of.name}', got {tasks}")
    if not 0 <= task < tasks:
        raise ValueError(f"task must lie in 0..{tasks - 1}, got {task}")
    size = of.classes // tasks
    first, classes = task * size, (task + 1) * size
    return Domain(
        f"{of.name}_task_{task}",
        classes,
        _of_classes(of.train, 0 if joint else first, classes),
        _of_classes(of.val, 0, classes),
        _of_classes(of.test, 0, classes),
        of.mean,
        of.std,
        of.modality,
        of.notes,
    )


def _of_classes(images: Images, first: int, end: int) -> Images:
    """Return the images of the classes first .. end - 1."""
    return images.take(torch.logical_and(images.y >= first, images.y < end))
