"""What the tests of all synthesizers share."""

import pytest
import torch

from dfkd.models import Classifier, Teacher, cnn_bn


@pytest.fixture
def pair():
    """Make an untrained teacher (of 4 classes, with statistics of its own) and a student of the same images."""

    def make(shape=(1, 8, 8), norm="batch") -> tuple[Teacher, Classifier]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = cnn_bn(shape, 4, widths=(4, 6), norm=norm)
            for module in net.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.uniform_(-0.5, 0.5)
                    module.running_var.uniform_(0.5, 1.5)
            teacher = Teacher(net, shape, 4, [0.4], [0.3])
            return teacher, Classifier(cnn_bn(shape, 4, widths=(4,)), shape, 4, [0.4], [0.3])

    return make


@pytest.fixture
def student(teacher) -> Classifier:
    """Of the digits, untrained."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Classifier(cnn_bn((1, 8, 8), 10, widths=(4, 8)), (1, 8, 8), 10, [0.3], [0.4])


@pytest.fixture
def one_round(unchanged):
    """Make one round and check what holds for every method: nothing but its own parts was touched."""

    def make(synthesizer, teacher, student=None, steer=None, round=0):
        checks = [unchanged(teacher)] + ([unchanged(student)] if student is not None else [])
        before, mode = torch.get_rng_state(), None if student is None else student.training
        made = synthesizer.synthesize(range(round, round + 1), teacher, student, steer)
        for check in checks:
            check()
        assert torch.equal(torch.get_rng_state(), before), "the global random stream was disturbed"
        assert not teacher.training and (student is None or student.training == mode)
        assert not made.images.requires_grad
        assert all(not value.requires_grad and value.isfinite() for value in made.metrics.values())
        return made

    return make
