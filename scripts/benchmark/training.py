"""Students on a pool, teachers on augmented images."""

from collections.abc import Callable

import torch

from benchmark import plain
from benchmark.measure import Bench, Check, Row, compare, compare_rounding, ratios, without_kinks
from dfkd.defenses import Defense
from dfkd.distill import CrossEntropy, Distillation, SiblingDistillation, Student, Trainer
from dfkd.domains import Domain, Images
from dfkd.machine.runtime import Runtime, seeded
from dfkd.models import Classifier, Teacher, cnn, cnn_bn
from dfkd.pool import Pool, Split
from dfkd.recipe import Recipe
from dfkd.scenarios import none
from dfkd.synthesizers import NoiseImages
from dfkd.teachers import Supervised
from dfkd.training.augment import augment, draw_shifts

SHAPE, CLASSES, MEAN, STD = (1, 28, 28), 10, [0.5], [0.25]


def network(kind: Callable = cnn) -> torch.nn.Module:
    """A fresh one, always the same."""
    with seeded(0, "network"):
        return kind(SHAPE, CLASSES)


def pool(runtime: Runtime, count: int) -> Pool:
    """Random images with random answers."""
    draw = runtime.generator(0, "pool")
    images = torch.rand(count, *SHAPE, generator=draw, device=runtime.device)
    answers = torch.randn(count, CLASSES, generator=draw, device=runtime.device)
    return Pool(None, images, answers, Split.everything(images))


def trainer(runtime: Runtime, recipe: Recipe, steps: int) -> Trainer:
    """A student as CAKE trains it."""
    student = Student(network(), recipe, CrossEntropy("soft"), epochs=1)
    model = runtime.to_device(Classifier(student.network, SHAPE, CLASSES, MEAN, STD))
    return Trainer(model, student, Defense(), runtime, seed=0, total_steps=steps)


def weights(module: torch.nn.Module, kind: Callable = cnn) -> list[torch.Tensor]:
    """How far its parameters are from where every `network` starts."""
    first = network(kind).to(next(module.parameters()))
    return [p - q for p, q in zip(module.parameters(), first.parameters(), strict=True)]


def plainly(x: torch.Tensor, target: torch.Tensor, steps: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What plain steps on one batch make of the weights of a `network`, in float32 and in float64."""
    trained = []
    for precision in (torch.float32, torch.float64):
        net = network().to(x.device, precision)
        wanted = target.to(precision) if target.is_floating_point() else target
        plain.train(net, (x.to(precision) - MEAN[0]) / STD[0], wanted, steps, 0.1)
        trained.append(weights(net))
    return tuple(trained)


def student(bench: Bench) -> list[Row]:
    """Shuffled batches of a pool against one resident batch, normalised already."""
    runtime, size, steps = bench.runtime, bench.size(16, 128, 128), bench.size(2, 40, 400)
    images = pool(runtime, size * bench.size(2, 40, 400))
    ours = trainer(runtime, Recipe(batch_size=size), steps * (bench.repeats + 1))
    bare = runtime.to_device(network())
    x = ((images.images[:size] - MEAN[0]) / STD[0]).contiguous(memory_format=torch.channels_last)
    target = images.logits[:size].softmax(1)
    taken = bench.seconds(
        ours=lambda: ours.train(images, steps),
        bare=lambda: plain.train(bare, x, target, steps, 0.1, runtime.autocast),
    )
    values = ratios(taken["bare"], taken["ours"])
    against = "bare step on one resident batch"
    return [Row("student training on a pool, cnn", against, bench.at_least(0.92, 1.5), values, [student_check(bench)])]


@without_kinks()
def student_check(bench: Bench) -> Check:
    """Three steps on a pool of one batch: shuffling it changes nothing."""
    size, steps = bench.size(8, 64, 64), 3
    small = pool(bench.runtime, size)
    ours = trainer(bench.exact, Recipe(batch_size=size, lr=0.1, schedule="constant"), steps)
    ours.train(small, steps)
    slow = plainly(small.images, small.logits.softmax(1), steps)
    return compare_rounding(f"weights after {steps} steps", weights(ours.model.net), *slow)


def distillations(
    runtime: Runtime, kind: Callable, images: Pool, seeds: range, epochs: int, steps: int
) -> list[Distillation]:
    """Students of a pool, all of the same network at the start.

    Args:
        kind: makes the networks.
        steps: an epoch.
    """
    teacher = runtime.to_device(Teacher(network(kind), SHAPE, CLASSES, MEAN, STD))
    recipe = Recipe(batch_size=len(images) // steps)
    return [
        Distillation(
            Student(network(kind), recipe, CrossEntropy("soft"), epochs),
            NoiseImages(SHAPE, 1, 1),
            Defense(),
            teacher,
            lambda model, split: {"iacc": 0.0},
            runtime,
            images,
            {"student": seed, "synthesis": 0},
            1,
            lambda step, metrics: None,
        )
        for seed in seeds
    ]


def replicas(bench: Bench) -> list[Row]:
    """Students of a pool side by side against one of them, without and with BatchNorm."""
    return [_replicas(bench, kind) for kind in (cnn, cnn_bn)]


def _replicas(bench: Bench, kind: Callable) -> Row:
    runtime, count, steps = bench.runtime, bench.size(2, 4, 8), bench.size(2, 10, 400)
    images = pool(runtime, bench.size(16, 128, 128) * steps)
    together = SiblingDistillation(distillations(runtime, kind, images, range(count), bench.repeats + 1, steps))
    (alone,) = distillations(runtime, kind, images, range(1), bench.repeats + 1, steps)
    taken = bench.seconds(ours=lambda: together.train(images, steps), alone=lambda: alone.trainer.train(images, steps))
    values = ratios(taken["ours"], taken["alone"])
    what, goal = f"{count} students of a pool side by side, {kind.__name__}", bench.at_most(count, 1.6)
    return Row(what, "one student", goal, values, [replicas_check(bench, kind)])


@without_kinks()
def replicas_check(bench: Bench, kind: Callable) -> Check:
    """Two students after two steps, side by side and in turn, both in float32: each step's batch is drawn anew, so no
    plain loop takes the same."""
    small = pool(bench.runtime, bench.size(32, 256, 256))
    fast, slow = (distillations(bench.exact, kind, small, range(2), 1, 2) for _ in range(2))
    SiblingDistillation(fast).run()
    for one in slow:
        one.run()
    ours, in_turn = ([p for one in those for p in weights(one.model.net, kind)] for those in (fast, slow))
    return compare("weights of 2 students after 2 steps, float32", ours, in_turn, 1e-4)


def domain(runtime: Runtime, count: int) -> Domain:
    """Random 8-bit images in the proportions of MNIST: nine parts to train on, one to validate."""
    draw = torch.Generator().manual_seed(0)

    def part(size: int) -> Images:
        images = torch.randint(256, (size, *SHAPE), generator=draw, dtype=torch.uint8)
        return Images(images, torch.randint(CLASSES, (size,), generator=draw))

    return Domain("random", CLASSES, part(count * 9 // 10), part(count // 10), part(10), MEAN, STD)


def teacher(bench: Bench) -> list[Row]:
    """An epoch with its validation against as many bare steps on one resident batch."""
    runtime, size = bench.runtime, bench.size(16, 128, 128)
    scenario = none(domain(runtime, bench.size(60, 8_000, 60_000)))
    recipe, train = Recipe(batch_size=size), scenario.id.train
    steps = len(train) // size
    bare = runtime.to_device(network())
    x = ((train.pixels(slice(0, size)) - MEAN[0]) / STD[0]).to(runtime.device)
    x, y = x.contiguous(memory_format=torch.channels_last), train.y[:size].to(runtime.device)

    def ours() -> None:
        kind = Supervised(network(), recipe, epochs=1, augment="shift")
        kind.train(scenario, runtime, 0, lambda epoch, metrics: None)

    taken = bench.seconds(ours=ours, bare=lambda: plain.train(bare, x, y, steps, 0.1, runtime.autocast))
    values = ratios(taken["bare"], taken["ours"])
    what = f"teacher training, augmented, an epoch of {len(train):,} images"
    checks = [shift_check(bench), teacher_check(bench)]
    return [Row(what, "bare step on one resident batch", bench.at_least(0.9, 1.3), values, checks)]


def shift_check(bench: Bench) -> Check:
    """The whole batch's shifts beside one image after the other, from the same draws."""
    images, pad = pool(bench.runtime, 64).images, 28 // 8
    shifts = draw_shifts(len(images), pad, bench.runtime.generator(0, "shift"))
    fast = augment(images, "shift", shifts)
    return compare("shifted images", [fast], [plain.shifted(images, pad, *shifts)], 0.0)


@without_kinks()
def teacher_check(bench: Bench) -> Check:
    """Three epochs of one batch without augmentation."""
    runtime, epochs = bench.exact, 3
    scenario = none(domain(runtime, bench.size(10, 80, 80)))
    train = scenario.id.train.to(runtime.device)
    recipe = Recipe(batch_size=len(train), lr=0.1, schedule="constant")
    kind = Supervised(network(), recipe, epochs)
    ours = kind.train(scenario, runtime, 0, lambda epoch, metrics: None)
    slow = plainly(train.pixels(), train.y, epochs)
    return compare_rounding(f"weights after {epochs} steps", weights(ours.net), *slow)
