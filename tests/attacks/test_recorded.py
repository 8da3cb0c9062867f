"""PGD as a graph: the result and the counts of the plain attack."""

import pytest
import torch
from fake_graphs import FakeGraphs, graphs_everywhere

from dfkd.attacks import PGD, RecordedPGD
from dfkd.machine.capture import WARM_UP
from dfkd.machine.runtime import Runtime
from dfkd.models import Teacher, cnn_bn

RUNTIME = Runtime(torch.device("cpu"), capture="graph")


@pytest.fixture(scope="module")
def teacher():
    return of_network("batch")


def of_network(norm):
    torch.manual_seed(0)
    return Teacher(cnn_bn((3, 8, 8), 5, widths=(4, 8), norm=norm), (3, 8, 8), 5, [0.5] * 3, [0.25] * 3)


@pytest.mark.cpu("the graphs are fake ones")
@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("attack", [PGD(0.05, steps=3), PGD([0.1, 0.0, 0.02], steps=2, random_start=False)])
def test_a_recorded_attack_is_the_plain_one(teacher, attack, stop):
    with graphs_everywhere(FakeGraphs()) as graphs:
        recorded, shares = RecordedPGD(RUNTIME), []
        for number in range(WARM_UP + 3):
            images = torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(number))
            logits, results, counts = teacher(images), [], []
            for run in (PGD.attack, recorded):
                before, draw = teacher.evals.copy(), torch.Generator().manual_seed(number)
                with teacher.counted_as("split"):
                    results.append(run(attack, teacher, images, draw, logits, stop))
                counts.append(teacher.evals - before)
            plain, fast = results
            assert torch.equal(plain.flipped, fast.flipped) and torch.equal(plain.dead, fast.dead)
            assert torch.allclose(plain.margin, fast.margin, atol=1e-5)
            assert torch.equal(plain.saturated, fast.saturated)
            assert counts[0] == counts[1] == {"split": plain.evals} and plain.evals == fast.evals
            shares.append(plain.evals / (30 * (attack.steps + 1)))
    assert graphs.replays == 3
    assert (min(shares) < 1) == stop and 0 < plain.flipped.sum() < 30


def test_without_graphs_nothing_is_shown_that_need_not_be():
    teacher = of_network("none")
    seen, images = [], torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = teacher(images)
    teacher.net.register_forward_pre_hook(lambda net, arguments: seen.append(len(arguments[0])))
    result = RecordedPGD(RUNTIME)(PGD(0.05, steps=3), teacher, images, torch.Generator(), logits)
    assert sum(seen) == result.evals and seen[0] == 30 and seen[-1] < 30


@pytest.mark.cpu("the graphs are fake ones")
def test_batches_of_two_sizes_that_take_turns_are_a_graph_each(teacher):
    attack, draw = PGD(0.05, steps=2), torch.Generator()
    with graphs_everywhere(FakeGraphs()) as graphs:
        recorded = RecordedPGD(RUNTIME)
        for _ in range(WARM_UP + 4):
            for size in (8, 12):
                images = torch.rand(size, 3, 8, 8, generator=draw)
                recorded(attack, teacher, images, draw, teacher(images))
    assert graphs.records == 2 and graphs.replays == 2 * 4
