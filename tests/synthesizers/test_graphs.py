"""Rounds whose steps are CUDA graphs, which a CPU plays here, make the images of rounds without, to the last bit."""

import contextlib
from dataclasses import replace

import pytest
import torch
from fake_graphs import FakeGraphs, graphs_everywhere
from killing import Killed, watched

from dfkd.machine.capture import WARM_UP
from dfkd.models import DCGAN, NLGenerator
from dfkd.priors import BatchNormEMA, Prior
from dfkd.resume.checkpoints import Checkpoints
from dfkd.synthesizers import CMI, DFQ, NAYER, AdaptiveDeepInversion, DeepInversion, Fast

pytestmark = pytest.mark.cpu("plays the graphs that tests/machine/test_capture.py records on a GPU")
ROUNDS, STEPS = 3, WARM_UP + 2
SHAPE, COMMON = (1, 8, 8), {"rounds": ROUNDS, "steps": STEPS, "batch_size": 8}
INVERSION = COMMON | {"adversarial": 1.0, "warm_up": 1}
PIXELS = COMMON | {"box": (0.0, 1.0), "jitter": 2}


def prior() -> Prior:
    return Prior({"bn_ema": BatchNormEMA()})


METHODS = {
    "fast": lambda: Fast(DCGAN(SHAPE, latent=8, width=8), 4, prior(), reset=1, views="crop_flip", **INVERSION),
    "reptile": lambda: Fast(DCGAN(SHAPE, latent=8, width=8), 4, prior(), meta="reptile", **INVERSION),
    "nayer": lambda: NAYER(NLGenerator(SHAPE, 4, embedding=12, noise=16, width=8), 4, prior(), renewal=2, **INVERSION),
    "cmi": lambda: CMI(DCGAN(SHAPE, latent=8, width=8), 4, prior(), bank=12, negatives=6, **COMMON),
    "deepinversion": lambda: DeepInversion(SHAPE, 4, prior(), **PIXELS),
    "adaptive_deepinversion": lambda: AdaptiveDeepInversion(SHAPE, 4, prior(), **PIXELS),
    "dfq": lambda: DFQ(DCGAN(SHAPE, latent=8, width=8), prior(), images=6, **COMMON),
}
# The warm-up has no adversarial term, and the first round of CMI no stored features: these are steps of another form.
FORMS = {"fast": 2, "reptile": 2, "nayer": 2, "cmi": 2}


@pytest.fixture
def made(runtime, pair):
    """Make all rounds of a method; return their images and metrics, and how many images the teacher was shown."""

    def make(method, graphs: FakeGraphs | None = None, steer=None) -> tuple[list, int]:
        with graphs_everywhere(graphs) if graphs else contextlib.nullcontext():
            teacher, student = pair()
            method.start(replace(runtime, capture="graph"), 0)
            student = student if method.online else None
            batches = [method.synthesize(range(r, r + 1), teacher, student, steer) for r in range(ROUNDS)]
        return batches, teacher.evals.total()

    return make


def new(name: str):
    torch.manual_seed(0)
    return METHODS[name]()


def same(one: tuple[list, int], other: tuple[list, int]) -> bool:
    (batches, evals), (others, more) = one, other
    images = all(torch.equal(a.images, b.images) for a, b in zip(batches, others, strict=True))
    return images and evals == more and all(a.metrics == b.metrics for a, b in zip(batches, others, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_a_recorded_step_holds_for_all_rounds(made, name):
    graphs = FakeGraphs()
    assert same(made(new(name)), made(new(name), graphs))
    forms = FORMS.get(name, 1)
    assert graphs.records == forms and graphs.replays == ROUNDS * STEPS - forms * WARM_UP


@pytest.mark.parametrize("name", ["fast", "dfq"])
def test_what_torch_cannot_record_is_computed_as_usual_with_one_line(made, caplog, name):
    caplog.set_level("INFO", "dfkd")
    graphs = FakeGraphs("no")
    assert same(made(new(name)), made(new(name), graphs))
    assert graphs.replays == 0 and len(caplog.messages) == 1 and "torch cannot record it: no" in caplog.text


class Remembering(BatchNormEMA):
    """A user's own term."""


class OwnFast(Fast):
    """A user's own method."""


@pytest.mark.parametrize("why", ["term", "prior", "method"])
def test_what_may_depend_on_anything_is_not_recorded(made, why):
    graphs, methods = FakeGraphs(), [new("fast"), new("fast")]
    for method in methods:
        if why == "term":
            method.term = lambda images, logits: images.mean()
        elif why == "prior":
            method.prior = Prior({"own": Remembering()})
        else:
            method.__class__ = OwnFast
    assert same(made(methods[0]), made(methods[1], graphs))
    assert graphs.records == graphs.warm_ups == 0


@pytest.mark.parametrize("name", ["fast", "cmi", "adaptive_deepinversion", "dfq"])
def test_a_step_that_asks_the_defense_is_two_graphs_around_the_question(made, name):
    """What is asked may depend on anything: here on random numbers, and on a look at the images."""

    def steer():
        stream = torch.Generator().manual_seed(0)
        return lambda images, logits: torch.rand(len(images), generator=stream) * float(images.mean() > 0)

    graphs = FakeGraphs()
    plain, fast = made(new(name), steer=steer()), made(new(name), graphs, steer())
    assert same(plain, fast) and not same(plain, made(new(name)))
    # two parts of a step, but for steps of a warm-up, which ask nothing
    asking = FORMS.get(name, 1) - (name == "fast")
    assert graphs.records == FORMS.get(name, 1) + asking


def test_a_user_s_own_method_asks_the_defense_when_it_likes(made):
    class Own(type(new("dfq"))):
        def terms(self, images, labels, teacher_pass, student, steer):
            weights = steer(images[:5], teacher_pass.logits[:5])
            return {"own": (weights[:, None] * teacher_pass.logits[:5]).mean()}

    asked, method = [], new("dfq")
    method.__class__ = Own
    made(method, steer=lambda images, logits: asked.append(len(images)) or torch.ones(len(images)))
    assert asked == [5] * (ROUNDS * STEPS)


class Fickle(torch.nn.Linear):
    """A layer that gets new parameters where others get new values."""

    def reset_parameters(self) -> None:
        self.weight = torch.nn.Parameter(torch.randn(self.out_features, self.in_features))
        self.bias = torch.nn.Parameter(torch.zeros(self.out_features))


def test_networks_with_tensors_in_new_places_are_recorded_again(made):
    def method():
        fickle = new("cmi")
        fickle.generator.project = Fickle(8, fickle.generator.project.out_features)
        fickle.contrast = 0.0
        return fickle

    graphs = FakeGraphs()
    assert same(made(method()), made(method(), graphs)) and graphs.records > 1


@pytest.mark.parametrize("kill_at", [STEPS + 1, 2 * STEPS])
def test_a_round_that_is_broken_off_goes_on_with_a_new_graph(tmp_path, runtime, pair, made, kill_at):
    def through() -> list[torch.Tensor]:
        torch.manual_seed(0)
        (teacher, student), method, images = pair(), new("adaptive_deepinversion"), []
        method.start(replace(runtime, capture="graph"), 0)
        point = Checkpoints(0)
        method.loop = point.loop
        with point.stage("pool", "key", tmp_path / ".key.checkpoint"):
            point.register(method=method, images=images)
            for number in point.loop("round", ROUNDS):
                images.append(method.synthesize(range(number, number + 1), teacher, student).images)
        return images

    with graphs_everywhere(FakeGraphs()) as graphs:
        with watched(kill_at), pytest.raises(Killed):
            through()
        again = through()
    assert graphs.records == 2
    plain, _ = made(new("adaptive_deepinversion"))
    assert all(torch.equal(a, b.images) for a, b in zip(again, plain, strict=True))
