"""Rounds of a distillation with a generator: DFQ's, undefended and defended by ATEsc."""

import copy
import functools
from collections.abc import Callable
from typing import TypeVar

import torch

from benchmark import plain
from benchmark.measure import Bench, Check, Row, compare_rounding, ratios, without_kinks
from dfkd.attacks import PGD
from dfkd.config.cell import Cell
from dfkd.defenses import Surrogate
from dfkd.distill import Distillation
from dfkd.evaluate import Examiner
from dfkd.machine.runtime import Runtime, seeded
from dfkd.models import DCGAN, Teacher
from dfkd.pool import Pool
from dfkd.stages.components import Components
from dfkd.stages.prepare import prepare
from dfkd.sweeps.compose import composed

T = TypeVar("T")


def components(bench: Bench, *overrides: str) -> Components:
    """The objects of a cell, as `dfkd OVERRIDES` builds them, on the benchmark's device and threads."""
    machine = [f"runtime.device={bench.runtime.device}", f"runtime.threads={torch.get_num_threads()}"]
    machine.append(f"outputs={bench.folder}")
    machine += ["data.limit=100"] if bench.toy else []
    return prepare(Cell(composed(*overrides, *machine)))


def frozen(made: Components, network: torch.nn.Module) -> Teacher:
    """A network of the cell as its teacher."""
    domain = made.scenario.id
    return made.runtime.to_device(Teacher(network, domain.shape, domain.classes, domain.mean, domain.std))


def distillation(made: Components, teacher: Teacher) -> Distillation:
    """A student at its start."""
    seeds, examiner = dict.fromkeys(("student", "synthesis"), 0), Examiner(teacher, made.scenario, made.runtime)
    with seeded(0, "student", "training"):
        return Distillation(
            made.student,
            made.synthesizer,
            made.defense,
            teacher,
            examiner,
            made.runtime,
            None,
            seeds,
            checks=1,
            log=lambda round, metrics: None,
        )


class Rounds:
    """Rounds of a distillation, one after the other, without validations."""

    def __init__(self, work: Distillation):
        self.work, self.done = work, 0

    def __call__(self, count: int) -> None:
        for _ in range(count):
            self.work.synthesize_round(self.done)
            self.work.trainer.train(self.work.pool, self.work.steps)
            self.done += 1

    def fill(self) -> None:
        """Until the pool has reached its capacity: from then on rounds are alike."""
        while len(self.work.pool) < self.work.pool.capacity:
            self(1)


def dfq(bench: Bench) -> list[Row]:
    """DFQ as shipped for MNIST, on the built-in digits at its size."""
    size = bench.size(16, 28, 32)
    options = [
        "experiment=dfq/digits",
        f"data.size={size}",
        f"student.capacity={bench.size(128, 2560, 10_000)}",
        f"runtime.precision={bench.runtime.precision}",
        *(["generator@synthesizer.generator=large", "network@teacher.network=resnet18"] if bench.cuda else []),
    ]
    made, again = components(bench, *options), components(bench, *options)
    teacher, rounds = frozen(made, made.teacher.network), bench.size(1, 6, 40)
    ours = Rounds(distillation(made, teacher))
    ours.fill()

    to_device, batch = made.runtime.to_device, made.student.recipe.batch_size
    z = torch.randn(made.synthesizer.batch_size, again.synthesizer.generator.latent, device=made.runtime.device)
    student, generator = to_device(again.student.network), to_device(again.synthesizer.generator)
    x = teacher.normalize(ours.work.pool.pixels(slice(0, batch))).contiguous(memory_format=torch.channels_last)
    bare = plain.Round(generator, teacher.net, student, z, x)

    def bare_rounds(draw: int = 0) -> None:
        for _ in range(rounds):
            bare(ours.work.steps, made.runtime.autocast, draw)

    count = made.synthesizer.images
    taken = bench.seconds(ours=lambda: ours(rounds), bare=bare_rounds, drawn=lambda: bare_rounds(count))
    against = {
        "bare": f"bare generator step + {ours.work.steps} bare KD steps",
        "drawn": f"the same, and {count} images drawn and labelled for these",
    }
    rates = {f"{name}, ms a round": 1000 * sorted(taken[name])[bench.repeats // 2] / rounds for name in taken}
    what, checks = f"one DFQ round, {size} pixels, {batch} images a step", [dfq_check(bench, options)]
    return [
        Row(what, against[name], bench.at_least(0.85, 0.95), ratios(taken[name], taken["ours"]), checks, rates)
        for name in against
    ]


@without_kinks()
def dfq_check(bench: Bench, options: list[str]) -> Check:
    """The gradients of the first generator step, in float32."""
    made = components(bench, *options, "runtime.precision=float32")
    teacher, synthesizer = frozen(made, made.teacher.network), made.synthesizer
    generator, student = copy.deepcopy(synthesizer.generator), copy.deepcopy(made.student.network)
    work = distillation(made, teacher)
    z = torch.randn(
        synthesizer.batch_size, generator.latent, generator=synthesizer.stream(0), device=made.runtime.device
    )
    synthesizer.synthesize(range(1), teacher, work.model)
    fast = [p.grad for p in synthesizer.generator.parameters()]
    mean, std = teacher.mean.cpu(), teacher.std.cpu()
    net = copy.deepcopy(teacher.net).to(memory_format=torch.contiguous_format)
    terms = synthesizer.prior.terms
    look = torch.nn.Sequential(Shift(mean, std), net).eval().to(made.runtime.device)
    other = torch.nn.Sequential(Shift(mean, std), student).eval().to(made.runtime.device)
    generator, weights = generator.train().to(made.runtime.device), (terms["bn"].weight, terms["balance"].weight)
    slow = []
    for precision in (torch.float32, torch.float64):
        nets = (net.to(precision) for net in (generator, look, other))
        slow.append(plain.dfq_gradients(*nets, z.to(precision), *weights))
    return compare_rounding("generator's gradients", fast, *slow)


def generator(bench: Bench) -> list[Row]:
    """A generator's images and their gradient, beside maps that are enlarged first."""
    runtime, side, count = bench.runtime, bench.size(8, 32, 32), bench.size(8, 32, 256)
    with seeded(0, "generator"):
        net = DCGAN((3, side, side), latent=bench.size(8, 256, 256), width=bench.size(8, 128, 128))
    net = runtime.to_device(net)
    z = torch.randn(count, net.latent, generator=runtime.generator(0, "z"), device=runtime.device)

    def gradients(images: Callable[[torch.Tensor], torch.Tensor], where: Runtime) -> tuple[torch.Tensor, ...]:
        with where.autocast():
            made = images(z)
        wide = made.to(torch.promote_types(made.dtype, torch.float32))
        return torch.autograd.grad(wide.square().mean(), list(net.parameters()))

    def before(z: torch.Tensor) -> torch.Tensor:
        return plain.enlarged(net, z)

    taken = bench.seconds(ours=lambda: gradients(net, runtime), bare=lambda: gradients(before, runtime))
    with without_kinks():
        fast, slow = gradients(net, bench.exact), gradients(before, bench.exact)
        net, z = net.double(), z.double()
        check = compare_rounding("gradients", fast, slow, gradients(before, bench.exact))
    what = f"the generator of CMI's benchmark, {side} pixels, {count} images: gradients"
    return [
        Row(what, "the same, maps enlarged first", bench.at_least(1.0), ratios(taken["bare"], taken["ours"]), [check])
    ]


class Shift(torch.nn.Module):
    """Normalises images."""

    def __init__(self, mean: torch.Tensor, std: torch.Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


def atesc(bench: Bench) -> list[Row]:
    """ATEsc's split of what DFQ makes of the quickstart's teacher, and its rounds beside undefended ones."""
    options = ["experiment=quickstart", f"teacher.epochs={bench.size(2, 20, 20)}", f"data.size={bench.size(8, 16, 32)}"]
    options += [f"student.capacity={bench.size(128, 2560, 2560)}"]
    made = {name: components(bench, *options, f"defense={name}") for name in ("none", "atesc", "atesc_fast")}
    trained = made["none"].teacher.train(made["none"].scenario, bench.exact, 0, lambda epoch, metrics: None)
    teacher, rounds = frozen(made["none"], trained.net), bench.size(1, 5, 20)
    going = {name: Rounds(distillation(its, teacher)) for name, its in made.items()}
    for each in going.values():
        each.fill()
    taken = bench.seconds(**{name: functools.partial(each, rounds) for name, each in going.items()})
    spent = {name: counted(teacher, functools.partial(each, rounds))[1] for name, each in going.items()}

    criterion, pool = made["atesc"].defense.criterion, going["none"].work.pool
    splits = [
        split_row(bench, attack, teacher, pool) for attack in (criterion.attack, PGD(criterion.attack.eps, steps=10))
    ]
    fast = components(bench, *options, "defense=atesc_fast").defense.criterion  # knows nothing yet
    splits.append(surrogate_row(bench, fast, criterion.attack, teacher, pool))
    against, both = "the undefended round", []
    for name, check in (("atesc", splits[0].checks), ("atesc_fast", splits[2].checks)):
        what = f"{name}, a round of the quickstart ({going[name].work.fragile_share:.0%} fragile)"
        ms = {f"{each}, ms a round": 1000 * sorted(taken[each])[bench.repeats // 2] / rounds for each in ("none", name)}
        both.append(Row(what, against, bench.at_most(1.35), ratios(taken[name], taken["none"]), check, ms))
        count = {f"{each}, evaluations a round": spent[each] / rounds for each in ("none", name)}
        more = [spent[name] / spent["none"]]
        both.append(Row(f"{what}: evaluations", against, bench.at_most(1.2), more, check, count))
    return [*splits, *both]


def counted(teacher: Teacher, work: Callable[[], T]) -> tuple[T, int]:
    """What the work comes to, and how many images the teacher is shown."""
    before = teacher.evals.total()
    done = work()
    return done, teacher.evals.total() - before


def split_row(bench: Bench, attack: PGD, teacher: Teacher, pool: Pool) -> Row:
    """Teacher evaluations of a split, which leaves an image alone once it has flipped."""
    images, logits = pool.pixels(), pool.logits

    def split(early: bool) -> torch.Tensor:
        draw = bench.runtime.generator(0, "split")
        return attack.attack(teacher, images, draw, logits, stop_when_flipped=early).flipped

    fast, slow = (counted(teacher, functools.partial(split, early)) for early in (True, False))
    what = f"ATEsc split of {len(images):,} DFQ images, {attack.steps} steps: evaluations"
    # on the way of an image whose gradient is almost 0 somewhere, its sign may hang on which images it is attacked with
    return _split_row(bench, what, fast, slow, tolerance=0.005)


def surrogate_row(bench: Bench, criterion: Surrogate, attack: PGD, teacher: Teacher, pool: Pool) -> Row:
    """The same of a surrogate that begins without answers, in batches of a round."""
    images, logits, size = pool.pixels(), pool.logits, 128

    def by_criterion() -> torch.Tensor:
        draw, batches = bench.runtime.generator(0, "split"), zip(images.split(size), logits.split(size), strict=True)
        return torch.cat([criterion.split(teacher, x, t, draw).fragile for x, t in batches])

    def by_attack() -> torch.Tensor:
        draw = bench.runtime.generator(0, "split")
        return attack.attack(teacher, images, draw, logits, stop_when_flipped=False).flipped

    what = f"the same split by criterion=surrogate, {attack.steps} steps: evaluations"
    return _split_row(bench, what, counted(teacher, by_criterion), counted(teacher, by_attack), tolerance=0.15)


def _split_row(
    bench: Bench, what: str, fast: tuple[torch.Tensor, int], slow: tuple[torch.Tensor, int], tolerance: float
) -> Row:
    """Two splits: what is fragile, and the evaluations spent."""
    (ours, spent), (theirs, full), count = fast, slow, len(fast[0])
    return Row(
        f"{what} ({ours.float().mean().item():.0%} fragile)",
        "attacking every image for all steps",
        bench.at_most(0.6),
        [spent / full],
        [Check("share of images split otherwise", (ours != theirs).float().mean().item(), tolerance)],
        {"evaluations an image": spent / count, "for all steps": full / count},
    )
