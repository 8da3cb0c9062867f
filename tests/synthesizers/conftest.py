"""What the tests of synthesizers share."""

import pytest
import torch
from small_generators import GENERATORS

from dfkd.models import Classifier, Teacher, cnn_bn
from dfkd.priors import Prior


@pytest.fixture
def student(teacher) -> Classifier:
    """Of the digits, untrained."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Classifier(cnn_bn((1, 8, 8), 10, widths=(4, 8)), (1, 8, 8), 10, [0.3], [0.4])


@pytest.fixture
def untrained():
    """Make a teacher and a student of random weights for images of the given channels."""

    def make(channels: int, norm: str) -> tuple[Teacher, Classifier]:
        torch.manual_seed(3)
        shape, mean, std = (channels, 8, 8), [0.4] * channels, [0.3] * channels
        teacher = Teacher(cnn_bn(shape, 10, widths=(4, 8), norm=norm), shape, 10, mean, std)
        return teacher, Classifier(cnn_bn(shape, 10, widths=(4, 8)), shape, 10, mean, std)

    return make


@pytest.fixture
def build(runtime):
    """Make a small generative synthesizer of a class, started."""

    def make(method: type, prior: Prior | None = None, generator: str = "dcgan", channels: int = 1, **options):
        torch.manual_seed(0)
        defaults = {"rounds": 20, "steps": 1, "batch_size": 16, "images": 6, "lr": 3e-3}
        made = method(GENERATORS[generator]((channels, 8, 8)), prior or Prior({}), **(defaults | options))
        made.start(runtime, seed=0)
        return made

    return make


@pytest.fixture
def losses():
    """The whole loss of the generator in the given number of rounds."""

    def run(method, rounds: int, teacher, student) -> list[float]:
        made = (method.synthesize(range(t, t + 1), teacher, student) for t in range(rounds))
        return [sum(batch.metrics.values()).item() for batch in made]

    return run


@pytest.fixture
def spy():
    """Steer with a constant weight, and keep what was shown."""

    def make(weight: float):
        def steer(images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            steer.seen.append((images, logits))
            return torch.full((len(images),), weight)

        steer.seen = []
        return steer

    return make


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
