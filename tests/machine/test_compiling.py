"""runtime.compile=true: where the teacher is compiled, and what happens if it cannot be."""

import pytest
import torch
from fake_graphs import FakeGraphs, graphs_everywhere
from runner import CAKE, make_cell

from dfkd.machine import compiling
from dfkd.machine.capture import WARM_UP
from dfkd.machine.runtime import Runtime, make_runtime
from dfkd.models import Teacher, cnn_bn
from dfkd.run.run_cell import run_cell


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return Teacher(cnn_bn((1, 8, 8), 3, widths=(4, 6)), (1, 8, 8), 3, [0.5], [0.3])


@pytest.fixture
def calls(monkeypatch):
    """A compiler that notes what is called, in place of torch's, which takes ten seconds and a C compiler."""
    made = []

    def compile(forward, **options):
        assert options == {"dynamic": False, "fullgraph": True}

        def fast(x):
            made.append(len(x))
            return forward(x)

        return fast

    monkeypatch.setattr(torch, "compile", compile)
    return made


def test_only_inside_the_block_the_teacher_is_compiled_and_counts_as_ever(teacher, calls):
    x = torch.rand(5, 1, 8, 8)
    expected = teacher(x)
    assert calls == []
    with compiling.compiling():
        assert torch.equal(teacher(x), expected) and torch.equal(teacher(x[:2]), teacher(x)[:2])
    assert calls == [5, 2, 5] and teacher.evals.total() == 17
    teacher(x)
    assert calls == [5, 2, 5]


def test_watched_layers_are_not_compiled_away(teacher, calls):
    seen = []
    teacher.net.body[0].register_forward_hook(lambda *_: seen.append(1))
    with compiling.compiling():
        teacher(torch.rand(5, 1, 8, 8))
    assert seen == [1] and calls == []


def test_a_moved_teacher_is_compiled_anew(teacher, calls):
    x = torch.rand(2, 1, 8, 8)
    with compiling.compiling():
        teacher(x)
        moved = teacher.double()
        assert moved(x.double()).dtype == torch.float64


def test_what_cannot_be_compiled_goes_on_without_with_one_line(teacher, monkeypatch, caplog):
    caplog.set_level("INFO", "dfkd")

    def compile(forward, **_):
        def fail(x):
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

        return fail

    monkeypatch.setattr(torch, "compile", compile)
    x = torch.rand(2, 1, 8, 8)
    expected = teacher(x)
    with compiling.compiling():
        assert torch.equal(teacher(x), expected) and torch.equal(teacher(x), expected)
    assert caplog.messages == ["  the teacher is not compiled: Failed to find C compiler."]
    assert teacher.evals.total() == 6


def test_a_step_that_is_not_recorded_is_computed_without(calls, teacher):
    runtime = Runtime(torch.device("cpu"), capture="graph", compile=True)
    with graphs_everywhere(FakeGraphs("no")):
        step = runtime.captured("a step", lambda x, net: net(x))
        for _ in range(WARM_UP + 3):
            step(torch.ones(4, 1, 8, 8), teacher)
    assert calls == [4] * (WARM_UP + 1)  # the one that could not be recorded is the last


def test_a_step_with_questions_is_not_compiled():
    def asks(x):
        yield min, x, x

    assert compiling.with_compiled_networks(asks) is None


def test_the_option_is_checked():
    assert make_runtime("cpu", compile=True).compile
    with pytest.raises(ValueError, match=r"runtime\.compile must be true or false, got 'yes'"):
        make_runtime("cpu", compile="yes")


@pytest.mark.cpu("the graphs are fake ones")
def test_a_run_of_cake_with_a_compiled_teacher_gives_the_same_student(tmp_path, calls):
    words = (*CAKE, "synthesizer.steps=8", "limit.steps=8", "runtime.capture=graph")
    plain = run_cell(make_cell(tmp_path / "plain", *words))
    assert calls == []
    with graphs_everywhere(FakeGraphs()):
        fast = run_cell(make_cell(tmp_path / "fast", *words, "runtime.compile=true"))
    assert len(calls) > WARM_UP
    assert fast["student_digest"] == plain["student_digest"] and fast["teacher_evals"] == plain["teacher_evals"]
