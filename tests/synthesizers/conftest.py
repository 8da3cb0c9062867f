"""What the tests of generative synthesizers share."""

import pytest
import torch
from small_generators import GENERATORS

from dfkd.models import Classifier, Teacher, cnn_bn
from dfkd.priors import Prior


@pytest.fixture
def student() -> Classifier:
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
