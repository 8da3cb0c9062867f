"""Steps as CUDA graphs, with graphs that a CPU can play: what is recorded, replayed, given up and told."""

import contextlib
from collections import Counter
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from fake_graphs import FakeGraphs, graphs_everywhere
from runner import BACKDOOR, CAKE, DFQ, NOISE, a_few, make_cell

from dfkd.defenses import All, ATEsc, Defense
from dfkd.machine import capture
from dfkd.machine.capture import PATIENCE, TRIALS, WARM_UP, CapturedStep
from dfkd.machine.graphs import CUDAGraphs
from dfkd.machine.runtime import Runtime, make_runtime
from dfkd.models import Teacher, cnn_bn, mlp
from dfkd.priors import BatchNormEMA, Prior, TotalVariation
from dfkd.recipe import Recipe
from dfkd.run.run_cell import run_cell
from dfkd.teachers import NTL, Backdoor, Supervised
from dfkd.training.optimizers import fused

BEFORE = WARM_UP + TRIALS  # calls before one is recorded


@pytest.fixture
def seconds(monkeypatch):
    """No time passes; a plain call takes `seconds["plain"]`, a replay `seconds["replay"]`."""
    took = {"plain": 2.0, "replay": 1.0, "now": 0.0}
    monkeypatch.setattr(capture.time, "perf_counter", lambda: took["now"])
    return took


@pytest.fixture
def graphs():
    return FakeGraphs()


@pytest.fixture
def double(graphs, seconds):
    """A step that doubles a tensor, as a step of a GPU."""

    def function(x, *others):
        seconds["now"] += seconds["plain"]
        return {"twice": 2 * x}, (x + 1, None)

    step = CapturedStep("a step", function, "auto", graphs)
    original = graphs.record

    def record(function):
        outputs, replay = original(function)

        def timed():
            replay()
            seconds["now"] += seconds["replay"] - seconds["plain"]

        return outputs, timed

    graphs.record = record
    return step


def call(step, *numbers):
    outputs, (more, nothing) = step(torch.tensor(numbers))
    assert torch.equal(outputs["twice"], 2 * torch.tensor(numbers)) and torch.equal(more, torch.tensor(numbers) + 1)
    assert nothing is None
    return outputs["twice"]


def test_it_is_recorded_after_a_few_calls_and_told_once_it_is_known_to_be_faster(double, graphs, caplog):
    caplog.set_level("INFO", "dfkd")
    for number in range(BEFORE):
        call(double, float(number))
    assert (graphs.warm_ups, graphs.records, graphs.replays) == (WARM_UP, 0, 0)
    for number in range(TRIALS + 1):
        call(double, float(number))
    assert (graphs.warm_ups, graphs.records, graphs.replays) == (WARM_UP, 1, TRIALS + 1)
    assert caplog.messages == ["  a step: as a CUDA graph, 2.00 times as fast here"]
    waits = graphs.waits
    call(double, 5.0)
    assert graphs.waits == waits and len(caplog.messages) == 1


def test_results_are_not_overwritten_by_the_next_replay(double):
    for _ in range(BEFORE):
        call(double, 0.0)
    first, second = call(double, 1.0), call(double, 2.0)
    assert (first.item(), second.item()) == (2.0, 4.0)


def test_what_is_in_a_list_is_valid_until_the_next_call(graphs):
    """Nobody copies it: these are the tensors that the graph writes into."""
    step = CapturedStep("a step", lambda x: (x + 1, [x + 2]), "graph", graphs)
    for _ in range(WARM_UP):
        step(torch.ones(1))
    first, (lent,) = step(torch.ones(1))
    assert (first.item(), lent.item()) == (2.0, 3.0)
    second, (same,) = step(torch.full((1,), 5.0))
    assert same is lent and (first.item(), second.item(), lent.item()) == (2.0, 6.0, 7.0)


def test_what_is_not_faster_is_not_used(double, graphs, seconds, caplog):
    caplog.set_level("INFO", "dfkd")
    seconds["replay"] = 4.0
    for _ in range(BEFORE + 1 + PATIENCE + 3):
        call(double, 1.0)
    assert graphs.replays == PATIENCE + 1 and double.recording is None
    assert caplog.messages == ["  a step: without a CUDA graph (with one it is 0.50 times as fast here)"]


def test_on_a_busy_gpu_a_graph_gets_time_to_be_the_faster_one(double, graphs, seconds, caplog):
    caplog.set_level("INFO", "dfkd")
    for number in range(BEFORE + PATIENCE - 1):
        seconds["replay"] = 1.0 if number == BEFORE + TRIALS + 7 else 4.0  # others have the GPU in the other calls
        call(double, 1.0)
    assert double.recording is not None
    assert caplog.messages == ["  a step: as a CUDA graph, 2.00 times as fast here"]


def test_a_graph_that_was_asked_for_is_not_timed(graphs):
    step = CapturedStep("a step", lambda x: x + 1, "graph", graphs)
    for _ in range(WARM_UP + 3):
        step(torch.ones(1))
    assert (graphs.records, graphs.replays, graphs.waits) == (1, 3, 0)


def test_another_form_is_computed_as_usual_and_the_recording_stays(double, graphs):
    for _ in range(BEFORE + 3):
        call(double, 1.0)
    call(double, 1.0, 2.0)  # a batch of another size
    for _ in range(TRIALS):
        call(double, 3.0)
    assert graphs.records == 1 and graphs.replays == 3 + TRIALS and double.recording is not None


def test_a_form_that_has_become_the_rule_is_recorded(double, graphs):
    for _ in range(BEFORE + 1):
        call(double, 1.0)
    for _ in range(BEFORE + 1):
        call(double, 1.0, 2.0)
    assert graphs.records == 2 and double.recording.form == ((torch.Size([2]), torch.float32, False),)


def test_once_it_is_known_to_be_faster_other_forms_are_recorded_without_timing(double, graphs, caplog):
    caplog.set_level("INFO", "dfkd")
    for _ in range(BEFORE + 1 + TRIALS):
        call(double, 1.0)
    waits = graphs.waits
    for _ in range(WARM_UP + 2):
        call(double, 1.0, 2.0)
    assert (graphs.records, graphs.waits, len(caplog.messages)) == (2, waits, 1)


def test_tensors_in_tuples_are_inputs_too_and_those_with_gradients_keep_them(graphs):
    def function(x, others):
        factor, nothing = others
        assert nothing is None
        return torch.autograd.grad((factor * x.square()).sum(), x)

    step = CapturedStep("a step", function, "graph", graphs)
    for number in range(WARM_UP + 3):
        x, factor = torch.full((2,), float(number), requires_grad=True), torch.tensor([1.0, 3.0 + number])
        (gradient,) = step(x, (factor, None))
        assert gradient.tolist() == [2.0 * number, 2.0 * number * (3 + number)]
    assert (graphs.records, graphs.replays) == (1, 3)


@pytest.mark.parametrize("look", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: x + torch.tensor(1.0)])
def test_fake_graphs_refuse_what_a_gpu_could_not_record(graphs, look):
    step = CapturedStep("a step", look, "graph", graphs)
    with pytest.raises(AssertionError, match="a GPU cannot record"):
        for _ in range(WARM_UP + 1):
            step(torch.ones(2))


def test_other_arguments_have_to_be_the_same_objects(graphs):
    step = CapturedStep("a step", lambda x, net: net(x).detach(), "graph", graphs)
    first, second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    for net in (*[first] * (WARM_UP + 2), second):
        assert torch.equal(step(torch.ones(1), net), net(torch.ones(1)))
    assert (graphs.records, graphs.replays) == (1, 2)


def test_what_cannot_be_recorded_goes_on_without_with_one_line(caplog):
    caplog.set_level("INFO", "dfkd")
    graphs = FakeGraphs(refuse="operation not permitted when stream is capturing\nmore of it")
    step = CapturedStep("a step", lambda x: x + 1, "graph", graphs)
    assert [step(torch.ones(1)).item() for _ in range(WARM_UP + 3)] == [2.0] * (WARM_UP + 3)
    assert graphs.records == 1
    reason = "torch cannot record it: operation not permitted when stream is capturing"
    assert caplog.messages == [f"  a step: without a CUDA graph ({reason})"]


@pytest.mark.parametrize("refuse", [None, "no"])
def test_what_a_teacher_is_shown_is_counted_in_replays_too(refuse):
    class Counting:
        def __init__(self):
            self.evals = Counter(split=3)

        def __call__(self, x):
            self.evals["synthesis"] += len(x)
            return x

    teacher = Counting()
    step = CapturedStep("a step", lambda x, net: net(x), "graph", FakeGraphs(refuse))
    calls = WARM_UP + 4
    for _ in range(calls):
        step(torch.ones(7), teacher)
    assert teacher.evals == {"split": 3, "synthesis": 7 * calls}


@pytest.fixture
def doubtful(graphs):
    """A step with two questions, and what it was asked."""
    asked, teacher = [], mock.Mock(evals=Counter())

    def double(x):
        asked.append(x.tolist())
        return 2 * x

    def function(x, teacher):
        leaf = x.detach().requires_grad_()
        teacher.evals["synthesis"] += 1
        y = leaf.square()
        weights = yield double, y.detach()
        teacher.evals["synthesis"] += 10
        more = yield double, weights + 1
        (gradient,) = torch.autograd.grad((weights * y).sum(), leaf)
        return gradient, more

    step = CapturedStep("a step", function, "graph", graphs)
    return lambda number: step(torch.full((2,), number), teacher), asked, teacher


def test_between_the_parts_of_a_step_its_questions_are_answered_anew(doubtful, graphs):
    """gradient = 2 x (2 x^2), more = 2 (2 x^2 + 1)"""
    step, asked, teacher = doubtful
    for number in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
        gradient, more = step(number)
        assert gradient.tolist() == [4 * number**3] * 2 and more.tolist() == [4 * number**2 + 2] * 2
        assert asked == [[number**2] * 2, [2 * number**2 + 1] * 2]
        asked.clear()
    assert graphs.records == 3 and graphs.replays == 3 * (6 - WARM_UP)
    assert teacher.evals == {"synthesis": 11 * 6}


def test_a_step_that_asks_nothing_this_time_is_one_graph(graphs):
    def function(x, question):
        weights = (yield question, x) if question else 1
        return weights * x

    step = CapturedStep("a step", function, "graph", graphs)
    assert [step(torch.full((1,), number), None).item() for number in (1.0, 2.0, 3.0, 4.0, 5.0)] == [1, 2, 3, 4, 5]
    assert (graphs.records, graphs.replays) == (1, 2)
    assert [step(torch.full((1,), number), torch.neg).item() for number in (1.0, 2.0, 3.0, 4.0)] == [-1, -4, -9, -16]
    assert (graphs.records, graphs.replays) == (3, 4)


def test_where_it_is_not_recorded_another_way_is_taken(graphs):
    step = CapturedStep("a step", lambda x: x + 1, "auto", FakeGraphs(refuse="no"), plain=lambda x: x + 2)
    assert [step(torch.ones(1)).item() for _ in range(BEFORE + 2)] == [2.0] * WARM_UP + [3.0] * (TRIALS + 2)
    assert make_runtime("cpu").captured("a step", min, plain=max) is max


def test_on_a_cpu_and_with_none_a_function_stays_itself():
    def function():
        return None

    for runtime in (make_runtime("cpu"), Runtime(torch.device("cuda"), capture="none")):
        assert runtime.captured("a step", function) is function
    assert isinstance(Runtime(torch.device("cuda")).captured("a step", function), CapturedStep)
    with pytest.raises(ValueError, match=r"runtime\.capture must be auto, none or graph, got 'cuda'"):
        make_runtime("cpu", capture="cuda")


def test_after_a_recording_that_fails_stream_and_generator_are_as_before(monkeypatch):
    """torch does not put them back."""
    stream, generator, left = mock.Mock(), mock.Mock(), []
    stream.device.index = 1
    generator.clone_state.return_value = "before"
    monkeypatch.setattr(torch.cuda, "CUDAGraph", mock.Mock)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "default_generators", ("of another device", generator))
    monkeypatch.setattr(torch.cuda, "set_stream", left.append)
    graphs = CUDAGraphs(torch.device("cuda", 1))
    assert graphs.record(lambda: "outputs")[0] == "outputs"
    assert left == [] and not generator.graphsafe_set_state.called
    with pytest.raises(RuntimeError, match="while capturing"):
        graphs.record(mock.Mock(side_effect=RuntimeError("while capturing")))
    assert left == [stream]
    generator.graphsafe_set_state.assert_called_once_with("before")


class Stateful(Defense):
    def loss(self, *arguments):
        return super().loss(*arguments)


class StatefulTeacher(Supervised):
    def loss(self, *arguments):
        return super().loss(*arguments)


class StatefulTerm(TotalVariation):
    pass


def test_only_what_depends_on_its_arguments_alone_is_recorded():
    net, recipe = mlp((1, 2, 1), 3), Recipe()
    assert Defense().loss_is_pure and ATEsc(All()).loss_is_pure and not Stateful().loss_is_pure
    assert Supervised(net, recipe, 1).loss_is_pure and Backdoor(net, recipe, 1).loss_is_pure
    assert not StatefulTeacher(net, recipe, 1).loss_is_pure and not NTL(net, recipe, 1).loss_is_pure
    assert Prior({"tv": TotalVariation()}).is_pure and Prior({"bn": BatchNormEMA()}).is_pure
    assert not Prior({"own": StatefulTerm()}).is_pure


def step_of(net, runtime):
    """The gradients of a step."""

    def gradients(x, y):
        with runtime.autocast():
            loss = F.cross_entropy(net(x).float(), y)
        return torch.autograd.grad(loss, list(net.parameters()))

    return gradients


def step_that_asks(net, runtime):
    """The same with weights that it asks for: the second graph has the gradient of what the first has computed."""
    draw = torch.Generator(runtime.device).manual_seed(1)

    def ask(logits):
        return torch.rand(len(logits), generator=draw, device=logits.device) * float(logits.isfinite().all())

    def gradients(x, y):
        with runtime.autocast():
            logits = net(x)
        losses = F.cross_entropy(logits.float(), y, reduction="none")
        weights = yield ask, logits.detach()
        return torch.autograd.grad((weights * losses).mean(), list(net.parameters()))

    return gradients


@pytest.mark.parametrize(("make", "parts"), [(step_of, 1), (step_that_asks, 2)])
def test_on_a_gpu_a_step_as_a_graph_is_the_step(device, make, parts):
    """With BatchNorm in training, whose statistics change in every step, and bfloat16."""
    if device.type != "cuda":
        pytest.skip("needs --device cuda")
    students = []
    for mode in ("none", "graph"):
        runtime = Runtime(device, "bfloat16", capture=mode)
        torch.manual_seed(0)
        net = runtime.to_device(cnn_bn((1, 8, 8), 10, widths=(4, 8, 8)))
        optimizer = fused(torch.optim.Adam, list(net.parameters()), lr=1e-2)
        step, data = runtime.captured("a step", make(net, runtime)), torch.Generator(device).manual_seed(0)
        for _ in range(WARM_UP + 10):
            x = torch.rand(32, 1, 8, 8, generator=data, device=device)
            for parameter, gradient in zip(net.parameters(), step(x, (10 * x.mean((1, 2, 3))).long()), strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
        students.append(net)
    assert isinstance(step, CapturedStep) and len(step.recording.parts) == parts
    for one, other in zip(*(net.state_dict().values() for net in students), strict=True):
        assert torch.allclose(one, other, atol=1e-3)


LONG = ("limit.rounds=3", "synthesizer.rounds=3", "runtime.capture=graph", "limit.steps=8", "limit.epochs=3")
RUNS = {
    "cake": ((*CAKE, "synthesizer.steps=8"), {"the teacher", "CAKE", "the student"}),
    "dfq": (("synthesizer=dfq", *DFQ, "synthesizer.steps=8"), {"the teacher", "the generator", "the student"}),
    "fast": (
        ("synthesizer=fast", "synthesizer.batch_size=20", "synthesizer.generator.width=8", "synthesizer.steps=8"),
        {"the teacher", "the images", "the student"},
    ),
    "deepinversion": (
        ("synthesizer=deepinversion", "synthesizer.batch_size=20", "synthesizer.steps=8"),
        {"the teacher", "the images", "the student"},
    ),
    "atesc": ((*NOISE, *BACKDOOR, "defense=atesc"), {"the teacher", "the student"}),
    "atesc_online": (
        ("synthesizer=dfq", *DFQ, *BACKDOOR, "synthesizer.steps=8", "defense=atesc"),
        {"the teacher", "the generator", "the student", "an attack"},
    ),
    "atesc_fast": (
        (
            *("synthesizer=cmi", "synthesizer.batch_size=20", "synthesizer.generator.width=8", *BACKDOOR),
            *("synthesizer.steps=8", "defense=atesc_fast", "defense.criterion.memory=20"),
        ),
        {"the teacher", "the images", "the student", "an attack", "the surrogate's line"},
    ),
    "views": ((*NOISE, "student.augment=cut_mix"), {"the teacher", "the student", "the student's views"}),
    "hint": (
        (*NOISE, "student.augment=shift", "loss@student.loss=hint"),
        {"the teacher", "the student", "the student's views"},
    ),
}


@pytest.mark.cpu("the graphs are fake ones")
@pytest.mark.parametrize("name", a_few(RUNS, "cake"))
def test_a_run_with_graphs_gives_the_same_student(tmp_path, monkeypatch, name):
    """Equal to the last bit, because the fake graphs compute what the plain run does."""
    words, expected = RUNS[name]
    made, original = set(), CapturedStep.__init__

    def note(step, name, *others):
        original(step, name, *others)
        name = name.split(" on ")[0]
        made.add(name.removeprefix("a step of "))

    monkeypatch.setattr(CapturedStep, "__init__", note)
    plain = run_cell(make_cell(tmp_path / "plain", *words, *LONG))
    assert made == set()
    with graphs_everywhere(FakeGraphs()) as graphs:
        fast = run_cell(make_cell(tmp_path / "fast", *words, *LONG))
    assert graphs.replays > 10
    assert fast["student_digest"] == plain["student_digest"] and fast["teacher_evals"] == plain["teacher_evals"]
    assert made >= expected


def test_a_teacher_with_other_weights_is_another_argument(graphs):
    """Its folded copy, which a recording has within, is made anew."""
    torch.manual_seed(0)
    teacher = Teacher(cnn_bn((1, 8, 8), 3, widths=(4, 6)), (1, 8, 8), 3, [0.5], [0.3])
    step = CapturedStep("a step", lambda x, teacher: teacher(x), "graph", graphs)
    x = torch.rand(2, 1, 8, 8)
    for _ in range(WARM_UP + 2):
        step(x, teacher)
    assert (graphs.records, graphs.replays) == (1, 2)
    with torch.no_grad():
        next(teacher.net.parameters()).mul_(2)
    teacher.changed()
    for _ in range(WARM_UP + 2):
        assert torch.allclose(step(x, teacher), teacher.net(x.sub(0.5).div(0.3)), atol=1e-5)
    assert (graphs.records, graphs.replays) == (2, 4)
