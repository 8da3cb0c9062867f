"""A student that sees new views of its pool in every step, as Fast trains it, so that the teacher answers anew."""

import copy
from collections.abc import Callable

import torch

from benchmark import flops, plain
from benchmark.cake import teacher
from benchmark.measure import TFLOPS, Bench, Check, Row, compare_rounding, without_kinks
from dfkd.defenses import Defense
from dfkd.distill import KL, Student, Trainer
from dfkd.machine.runtime import Runtime, seeded
from dfkd.models import Classifier, cnn_bn, resnet
from dfkd.pool import Pool, Split
from dfkd.recipe import Recipe

CLASSES, MEAN, STD = 10, [0.5] * 3, [0.25] * 3
LR = 0.2
RESNETS = (3, 4, 6, 3), (2, 2, 2, 2)  # blocks of ResNet-34 and ResNet-18


def networks(bench: Bench) -> list[Callable]:
    """Two functions that make a ResNet-34 and a ResNet-18, or in a test small networks."""
    if bench.toy:
        return [cnn_bn, cnn_bn]
    return [lambda shape, classes, blocks=blocks: resnet(shape, classes, blocks) for blocks in RESNETS]


def trainer(bench: Bench, runtime: Runtime, size: int, steps: int) -> Trainer:
    """A student at its start."""
    side, (large, small) = bench.size(8, 32, 32), networks(bench)
    shape = (3, side, side)
    recipe = Recipe(batch_size=size, lr=LR, weight_decay=plain.DECAY, schedule="constant")
    with seeded(1, "network"):
        student = Student(small(shape, CLASSES), recipe, KL(), steps=steps, augment="black_crop_flip")
    model = runtime.to_device(Classifier(student.network, shape, CLASSES, MEAN, STD))
    return Trainer(model, student, Defense(), runtime, 0, steps, runtime.to_device(teacher(large, shape)))


def pool(runtime: Runtime, count: int, side: int) -> Pool:
    """Random images, whose answers nobody looks at."""
    images = torch.rand(count, 3, side, side, generator=runtime.generator(0, "pool"), device=runtime.device)
    return Pool(None, images, images.new_zeros(count, CLASSES), Split.everything(images))


def views(bench: Bench) -> list[Row]:
    """A step of a ResNet-18 on new views, which a ResNet-34 answers."""
    size, steps, side = bench.size(8, 16, 256), bench.size(2, 2, 60), bench.size(8, 32, 32)
    ours, images = trainer(bench, bench.runtime, size, steps), pool(bench.runtime, 4 * size, side)
    seconds = bench.seconds(ours=lambda: ours.train(images, steps))["ours"]
    values = [1000 * taken / steps for taken in seconds]
    shape = ours.model.shape
    work = size * (flops.per_image(ours.teacher.net, shape) + flops.per_image(ours.model.net, shape, "weights"))
    rates = {TFLOPS: work / sorted(seconds)[bench.repeats // 2] * steps / 1e12}
    what = f"student step on {size} new views, ResNet-34 -> ResNet-18"
    return [Row(what, "the clock", bench.at_most(None, 9), values, [views_check(bench)], rates, "ms")]


@without_kinks()
def views_check(bench: Bench) -> Check:
    """Three steps beside plain ones on the same views, which a second trainer draws from the same random numbers."""
    size, steps, side = bench.size(8, 8, 64), 3, bench.size(8, 32, 32)
    images = pool(bench.exact, size, side)
    ours, again = (trainer(bench, bench.exact, size, steps) for _ in range(2))
    first = [p.detach().clone() for p in ours.model.net.parameters()]
    batches = [again.load_batch(images, again.next_index(images))[0] for _ in range(steps)]
    ours.train(images, steps)
    slow = []
    for precision in (torch.float32, torch.float64):
        student, answers = (copy.deepcopy(each.net).to(precision) for each in (again.model, again.teacher))
        plain.distil(student, answers, [(x.to(precision) - MEAN[0]) / STD[0] for x in batches], LR)
        slow.append([p - q for p, q in zip(student.parameters(), first, strict=True)])
    moved = [p - q for p, q in zip(ours.model.net.parameters(), first, strict=True)]
    return compare_rounding(f"weights after {steps} steps", moved, *slow)
