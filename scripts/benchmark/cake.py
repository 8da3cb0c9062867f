"""CAKE's synthesis and the BatchNorm prior."""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmark import flops, plain
from benchmark.measure import TFLOPS, Bench, Check, Goal, Row, compare, compare_rounding, ratios, without_kinks
from dfkd.machine.capture import WARM_UP
from dfkd.machine.runtime import Runtime, seeded
from dfkd.models import Teacher, cnn, resnet
from dfkd.noise import Noise
from dfkd.priors import BatchNormPrior, Prior, TotalVariation
from dfkd.synthesizers import CAKE

Shape, Rows = tuple[int, int, int], list[Row]
CLASSES = 10
WEIGHTS = (1e3, 10.0, 1e5)  # class, contrast, total variation: conf/synthesizer/cake.yaml
EPS = 0.1


def teacher(network: Callable, shape: Shape, seed: int = 0) -> Teacher:
    """A frozen network with random weights: no slower and no faster than a trained one."""
    with seeded(seed, "network"):
        return Teacher(network(shape, CLASSES), shape, CLASSES, [0.5] * shape[0], [0.25] * shape[0])


def sets(runtime: Runtime, shape: Shape, count: int, images: int, steps: int) -> CAKE:
    """The shipped recipe on `count` sets of `images` images, side by side."""
    made = CAKE(
        shape,
        CLASSES,
        Prior({"tv": TotalVariation(WEIGHTS[2])}),
        Noise("constant", eps=EPS),
        rounds=count,
        steps=steps,
        batch_size=images,
        groups=10,
        class_weight=WEIGHTS[0],
        contrast_weight=WEIGHTS[1],
        chunk=count * images,
    )
    made.start(runtime, seed=0)
    return made


def start(synthesizer: CAKE, images: int) -> list[torch.Tensor]:
    """The noise that each of its sets starts from."""
    device, shape = synthesizer.runtime.device, synthesizer.shape
    streams = [synthesizer.stream(t) for t in range(synthesizer.rounds)]
    return [torch.randn(images, *shape, generator=stream, device=device) for stream in streams]


@without_kinks()
def checked(bench: Bench, network: Callable, shape: Shape, images: int) -> list[Check]:
    """The terms and the way of the pixels in the first step (the next ones would multiply its rounding), beside the
    plain loop: in float32, and in the precision that is measured."""
    count, plains = 2, [teacher(network, shape).to(bench.runtime.device)]
    plains.append(copy.deepcopy(plains[0]).double())
    checks = []
    for runtime in dict.fromkeys((bench.exact, bench.runtime)):
        ours = sets(runtime, shape, count, images, steps=1)
        x = start(ours, images)
        fast = ours.synthesize(range(count), runtime.to_device(teacher(network, shape)))
        labels = fast.columns["target"].split(images)
        way = [plains[0].normalize(fast.images) - torch.cat(x)]
        ways = [[plainly(each.net, a, y) for a, y in zip(x, labels, strict=True)] for each in plains]
        if runtime == bench.exact:
            checks.append(compare_rounding("pixels' way in a step", way, *ways))
        else:
            checks.append(compare(f"pixels' way in a step, {runtime.precision}", way, ways[1], 0.1))
            continue
        terms = [[cake_terms(each.net, a, y) for a, y in zip(x, labels, strict=True)] for each in plains]
        for place, name in enumerate(("class", "contrast", "tv")):
            slow = [[torch.stack([found[place] for found in each]).mean()] for each in terms]
            checks.append(compare_rounding(f"{name} term", [fast.metrics[name]], *slow))
    return checks


def plainly(net: torch.nn.Module, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The way of a set's pixels in a plain step, in the precision of the network."""
    start = x.to(next(net.parameters()))
    return plain.cake_set(net, start, labels, 1, EPS, WEIGHTS) - start


def cake_terms(net: torch.nn.Module, x: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    """The terms of a set in the plain form, in the precision of the network."""
    return plain.cake_terms(net, x.to(next(net.parameters())), labels, WEIGHTS)


def synthesis(
    bench: Bench, name: str, network: Callable, shape: Shape, images: int, steps: int, bare: Goal, loop: Goal
) -> Rows:
    """Two sets side by side against the bare gradients of as many images, and against one set after the other.

    Args:
        bare, loop: the goals of the two ratios.
    """
    runtime, count = bench.runtime, 2
    fast = runtime.to_device(teacher(network, shape))
    slow = teacher(network, shape).to(runtime.device)
    ours = sets(runtime, shape, count, images, steps)
    more = sets(replace(runtime, compile=True), shape, count, images, steps) if bench.cuda else None
    x = start(ours, images)
    labels = ours.synthesize(range(count), fast).columns["target"].split(images)
    together = torch.cat(x).contiguous(memory_format=torch.channels_last)

    def reference() -> None:
        for a, y in zip(x, labels, strict=True):
            plain.cake_set(slow.net, a, y, steps, EPS, WEIGHTS)

    taken = bench.seconds(
        ours=lambda: ours.synthesize(range(count), fast),
        bare=lambda: plain.input_gradients(fast.net, together, steps, runtime.autocast),
        loop=reference,
        **({"compiled": lambda: more.synthesize(range(count), fast)} if more else {}),
    )
    work = count * images * steps
    rates = {f"{who}, image-steps/s": work / sorted(taken[who])[bench.repeats // 2] for who in taken}
    an_image = flops.per_image(slow.net, shape, "inputs") / 1e12
    rates[TFLOPS] = an_image * rates["ours, image-steps/s"]
    checks, what = checked(bench, network, shape, images), f"CAKE synthesis, {name}, {count} sets of {images}"
    against = "bare forward + input gradient"
    rows = [
        Row(what, against, bare, ratios(taken["bare"], taken["ours"]), checks, rates),
        Row(what, "plain float32 contiguous loop", loop, ratios(taken["loop"], taken["ours"]), checks, rates),
    ]
    if more:
        rates = {TFLOPS: an_image * rates["compiled, image-steps/s"]}
        checks = [compiled_check(runtime, network, shape, images)]
        values = ratios(taken["bare"], taken["compiled"])
        rows.append(Row(f"{what}, runtime.compile=true", against, bare, values, checks, rates))
    return rows


def compiled_check(runtime: Runtime, network: Callable, shape: Shape, images: int) -> Check:
    """The way of the pixels in a step with a compiled teacher beside the step without."""
    ways = []
    for compile in (False, True):
        ours = sets(replace(runtime, compile=compile, capture="graph"), shape, 1, images, steps=1)
        frozen, x = runtime.to_device(teacher(network, shape)), start(ours, images)
        labels = ours._labels(ours.stream(0))[None]
        gradients = [ours.gradients(x[0], labels, frozen)[2] for _ in range(WARM_UP + 2)]
        ways.append([gradients[-1].float()])
    return compare(f"pixels' gradients, compiled, {runtime.precision}", ways[1], ways[0], 0.1)


def matrix_product(bench: Bench) -> list[Row]:
    """What the device does at the most: the product of two large square matrices, in bfloat16 if that is measured."""
    side, precision = bench.size(64, 2048, 8192), "bfloat16" if bench.runtime.precision == "bfloat16" else "float32"
    a = torch.randn(side, side, device=bench.runtime.device, dtype=getattr(torch, precision))
    taken = bench.seconds(product=lambda: a @ a)["product"]
    values = [2 * side**3 / seconds / 1e12 for seconds in taken]
    what = f"matrix product, {side} x {side}, {precision}"
    return [Row(what, "the clock", None, values, unit="TFLOP/s")]


def cnn_synthesis(bench: Bench) -> list[Row]:
    """On MNIST's network."""
    sizes = bench.size(10, 500, 500), bench.size(1, 6, 64)
    return synthesis(bench, "cnn", cnn, (1, 28, 28), *sizes, bench.at_least(0.92, 1.5), bench.at_least(2.2, 5.0))


def resnet_synthesis(bench: Bench) -> list[Row]:
    """On CIFAR's network, or in a test on a part of it; on a GPU it is to come near the matrix product."""
    side = bench.size(8, 32, 32)
    blocks = (1, 1, 1, 1) if bench.toy else (2, 2, 2, 2)

    def network(shape: tuple, classes: int) -> torch.nn.Module:
        return resnet(shape, classes, blocks)

    sizes = bench.size(10, 50, 500), bench.size(1, 3, 16)
    goals = bench.at_least(0.92, 0.85), bench.at_least(1.7, 5.0)
    rows = synthesis(bench, "resnet18", network, (3, side, side), *sizes, *goals)
    first, goal = rows[0], bench.at_least(None, 320)
    speed = Row(first.what, "the clock", goal, [first.rates[TFLOPS]], first.checks, first.rates, "TFLOP/s")
    return [*rows, speed]


def bn_prior(bench: Bench) -> list[Row]:
    """A look with BatchNorm statistics and the prior's input gradient, against a look without."""
    runtime, side, count = bench.runtime, bench.size(8, 32, 32), bench.size(8, 100, 256)
    steps = bench.size(1, 2, 20)
    blocks = (1, 1, 1, 1) if bench.toy else (2, 2, 2, 2)
    frozen = teacher(lambda shape, classes: resnet(shape, classes, blocks), (3, side, side)).to(runtime.device)
    x = torch.randn(count, 3, side, side, generator=runtime.generator(0, "bn"), device=runtime.device)
    prior = Prior({"bn": BatchNormPrior()})

    def gradient(images: torch.Tensor, where: Runtime) -> torch.Tensor:
        images = images.detach().requires_grad_()
        with where.autocast():
            teacher_pass = prior.run_teacher(frozen, images)
        return torch.autograd.grad(teacher_pass.logits.sum() + prior(teacher_pass)["bn"].sum(), images)[0]

    def plainly(precision: torch.dtype) -> list[torch.Tensor]:
        net, leaf = copy.deepcopy(frozen.net).to(precision), x.to(precision).requires_grad_()
        logits, distance = plain.bn_distance(net, leaf)
        return [torch.autograd.grad(logits.sum() + distance, leaf)[0]]

    with without_kinks():
        slow = plainly(torch.float32), plainly(torch.float64)
        runtime.to_device(frozen)
        x = x.contiguous(memory_format=torch.channels_last)
        check = compare_rounding("input gradient", [gradient(x, bench.exact)], *slow)

    step = runtime.captured("a look with the BN prior", lambda images: gradient(images, runtime))  # as in a run
    taken = bench.seconds(
        ours=lambda: [step(x) for _ in range(steps)],
        bare=lambda: plain.input_gradients(frozen.net, x, steps, runtime.autocast),
    )
    values = ratios(taken["ours"], taken["bare"])
    against = "plain forward + input gradient"
    return [Row(f"BN prior, resnet18, {count} images", against, bench.at_most(1.15), values, [check])]
