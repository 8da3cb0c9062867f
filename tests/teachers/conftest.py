"""An OOD domain that an ordinary teacher is good on: what is wrong there was taught."""

import pytest

from dfkd.domains import Images, textured
from dfkd.evaluate import accuracy
from dfkd.models import Classifier, cnn_bn
from dfkd.scenarios import Scenario, close_set


@pytest.fixture(scope="session")
def near(small_digits, trained, runtime) -> Scenario:
    """Digits, and the same on faint textures."""
    scenario = close_set(small_digits, textured(small_digits, strength=0.3))
    assert accuracy(trained, scenario.ood.val, runtime) > 60
    return scenario


@pytest.fixture
def batches(random):
    """Make two batches of n random images with labels of `classes`, and a classifier in training mode for them."""

    def make(n=6, classes=3, net=None) -> tuple[Classifier, Images, Images]:
        import torch

        torch.manual_seed(0)
        net = net or cnn_bn((1, 8, 8), classes, widths=(4, 6))
        x = torch.rand(2, n, 1, 8, 8, generator=random)
        y = torch.randint(classes, (2, n), generator=random)
        model = Classifier(net, (1, 8, 8), classes, [0.4], [0.3])
        return model.train(), Images(x[0], y[0]), Images(x[1], y[1])

    return make
