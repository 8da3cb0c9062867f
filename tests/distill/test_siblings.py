"""Students side by side are those that are trained one after the other, whatever they are trained with."""

import contextlib
import copy
from dataclasses import replace

import pytest
import torch
from fake_graphs import FakeGraphs, graphs_everywhere

from dfkd.defenses import All, ATEsc, Defense
from dfkd.distill import KL, L1, CrossEntropy, Distillation, Hint, SiblingDistillation, Student
from dfkd.distill.siblings import stacked
from dfkd.errors import CannotTrainTogether, NonFiniteLoss
from dfkd.machine.capture import WARM_UP
from dfkd.machine.runtime import seeded
from dfkd.models import cnn_bn, resnet4
from dfkd.models.common import FeatureNet
from dfkd.pool import Pool, Split
from dfkd.recipe import Recipe
from dfkd.synthesizers import Synthesizer

SEEDS = (3, 4, 9)


class Offline(Synthesizer):
    """Its pool is there already."""

    def synthesize(self, *_):
        raise AssertionError


class Examiner:
    """Knows a number of every student."""

    def __call__(self, model, split: str) -> dict[str, float]:
        with torch.no_grad():
            return {"iacc": model(torch.ones(2, 1, 8, 8)).softmax(1)[0, 0].item()}


@pytest.fixture
def pool(teacher) -> Pool:
    made, stream = Pool(), torch.Generator().manual_seed(0)
    images = torch.rand(100, 1, 8, 8, generator=stream)
    fragile = torch.rand(100, generator=stream) < 0.6
    made.add(images, teacher.predict(images), Split(fragile, torch.zeros(100)))
    return made


@pytest.fixture
def make(teacher, runtime, pool):
    """Makes the distillations of all seeds, each as its own run does."""

    def distillations(defense=Defense, network=cnn_bn, recipe=None, loss=CrossEntropy, augment="none", runtime=runtime):
        found = []
        for seed in SEEDS:
            with seeded(seed, "network"):
                net = network((1, 8, 8), 10, widths=(4, 8, 8))
            student = Student(net, recipe or Recipe(lr=0.05, batch_size=32), loss(), epochs=2, augment=augment)
            seeds, rows = {"student": seed, "synthesis": 0}, []
            synthesizer = Offline(1)
            work = Distillation(
                student,
                synthesizer,
                defense(),
                teacher,
                Examiner(),
                runtime,
                pool,
                seeds,
                2,
                lambda *r, to=rows: to.append(r),
            )
            work.rows = rows
            found.append(work)
        return found

    return distillations


def distance(one: torch.nn.Module, other: torch.nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max((a.float() - b.float()).abs().max().item() for a, b in pairs)


def plain(shape, classes, **_) -> FeatureNet:
    body = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
    return FeatureNet(body, torch.nn.Linear(4 * 6 * 6, classes))


CASES = {
    "sgd": {},
    "adam": {"recipe": Recipe("adam", lr=1e-3, batch_size=32)},
    "adamw, cosine": {"recipe": Recipe("adamw", lr=1e-3, batch_size=32, schedule="cosine")},
    "no BatchNorm": {"network": plain},
    "residual": {"network": lambda shape, classes, **_: resnet4(shape, classes)},
    "KL": {"loss": lambda: KL(4.0)},
    "L1": {"loss": L1},
    "hard labels": {"loss": lambda: CrossEntropy("hard")},
    "hint": {"loss": lambda: Hint(KL())},
    "hint, shift": {"loss": lambda: Hint(CrossEntropy()), "augment": "shift"},
    "shift": {"augment": "shift"},
    "cut_mix": {"augment": "cut_mix"},
    "forget": {"defense": lambda: ATEsc(All()), "augment": "cut_mix"},
    "forget, kl": {"defense": lambda: ATEsc(All(), forget="kl", reduction="group")},
    "a batch larger than the pool": {"recipe": Recipe(lr=0.05, batch_size=1000)},
}


@pytest.mark.parametrize("case", CASES)
def test_each_is_what_it_is_by_itself(make, teacher, case):
    before, alone, together = make(**CASES[case]), make(**CASES[case]), make(**CASES[case])
    for work in alone:
        work.run()
        spent = work.evals()
        teacher.evals.clear()
    SiblingDistillation(together).run()
    for old, one, other in zip(before, alone, together, strict=True):
        moved = distance(old.model, one.model)
        assert moved > 1e-2 and distance(one.model, other.model) < 1e-3 * moved
        assert one.validation == pytest.approx(other.validation, abs=1e-4)
        assert one.best["round"] == other.best["round"] and other.evals() == spent
        assert [step for step, _ in one.rows] == [step for step, _ in other.rows]
        for (_, mine), (_, others) in zip(one.rows, other.rows, strict=True):
            assert mine == pytest.approx(others, rel=1e-2, abs=1e-3)
    assert distance(together[0].model, together[1].model) > 1e-2


@pytest.mark.cpu("the graphs are fake ones, and a GPU does not repeat steps to the bit")
@pytest.mark.parametrize(
    ("case", "refuse"), [("sgd", None), ("sgd", "no"), ("cut_mix", None), ("forget", None), ("hint, shift", None)]
)
def test_steps_as_graphs_are_the_same_steps(make, runtime, teacher, caplog, case, refuse):
    caplog.set_level("INFO", "dfkd")
    plain, fast, shown = make(**CASES[case]), [], []
    for graphs in (None, FakeGraphs(refuse)):
        teacher.evals.clear()
        with graphs_everywhere(graphs) if graphs else contextlib.nullcontext():
            fast = make(**CASES[case], runtime=replace(runtime, capture="graph")) if graphs else plain
            SiblingDistillation(fast).run()
        shown.append(teacher.evals.copy())
    assert shown[0] == shown[1]
    assert all(distance(one.model, other.model) == 0 for one, other in zip(plain, fast, strict=True))
    views, steps = CASES[case].get("augment", "none") != "none", 6
    if refuse:
        (line,) = caplog.messages
        assert line == "  a step of the students: without a CUDA graph (torch cannot record it: no)"
    else:  # one graph makes the views of all students
        assert graphs.records == 1 + views
        assert graphs.replays == steps - WARM_UP + views * (len(SEEDS) * steps - WARM_UP)


def test_they_share_the_clock(make):
    together = make()
    SiblingDistillation(together).run()
    spent = [work.seconds() for work in together]
    whole = together[0].clock.read()
    assert spent[0] == spent[1] == spent[2]
    assert spent[0]["distill"] == pytest.approx(whole["distill"] / 3, abs=1e-3)


def test_the_teacher_does_not_change(make, teacher, unchanged):
    check = unchanged(teacher)
    SiblingDistillation(make(augment="shift")).run()
    check()


def test_tensors_of_their_own_are_tied_again(make):
    """As a checkpoint gives them: by value."""
    alone, together = make(), make()
    siblings = SiblingDistillation(together)
    for work in alone:
        work.run()
    for number in range(2):
        for work in together:
            for tensor in work.model.state_dict(keep_vars=True).values():
                tensor.data = tensor.data.clone()
        siblings.run(rounds=[number])
    assert max(distance(one.model, other.model) for one, other in zip(alone, together, strict=True)) < 1e-4


def test_a_loss_that_is_not_finite_names_its_term_and_has_the_state_of_its_student(make, pool):
    together = make()
    with torch.no_grad():
        next(together[1].model.parameters()).fill_(float("inf"))
    before = copy.deepcopy(together[1].trainer.last_good)
    with pytest.raises(NonFiniteLoss, match="'kd' is not finite at step 1") as caught:
        SiblingDistillation(together).run()
    assert all(torch.equal(value, before[name]) for name, value in caught.value.state.items())


def test_the_others_of_one_that_fails_are_as_they_would_be(make):
    alone, together = make(), make()
    with torch.no_grad():
        next(together[1].model.parameters()).fill_(float("nan"))
    siblings = SiblingDistillation(together)
    siblings.train(together[0].pool, 3)
    alone[2].trainer.train(alone[2].pool, 3)
    assert distance(alone[2].model, together[2].model) < 1e-5


@pytest.mark.parametrize("last", [False, True])
def test_what_is_stacked_keeps_its_memory_format_student_by_student(last, random):
    tensors = [torch.rand(6, 5, 3, 2, generator=random) for _ in range(3)]
    format = torch.channels_last if last else torch.contiguous_format
    like = tensors[0].contiguous(memory_format=format)
    for found in (stacked([like, *tensors[1:]]), stacked(tensors, like)):
        assert torch.equal(found, torch.stack(tensors))
        assert all(part.is_contiguous(memory_format=format) for part in found)


class Greedy(FeatureNet):
    """Takes more memory than there is."""

    def forward(self, x):
        if self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB\nand more")
        return super().forward(x)


def test_too_little_memory_is_told(make):
    def greedy(shape, classes, **sizes):
        net = cnn_bn(shape, classes, **sizes)
        return Greedy(net.body, net.head)

    with pytest.raises(CannotTrainTogether, match=r"torch cannot train them together \(CUDA out of memory.* TiB\)"):
        SiblingDistillation(make(network=greedy)).run()
