import pytest
import torch
from torch import nn

from dfkd.models import Teacher, cnn, cnn_bn, resnet, resnet4, vgg, watch_batch_norms, wrn
from dfkd.models.folded import fold_batch_norms

SHAPE = (3, 32, 32)
NETWORKS = {
    "cnn_bn": cnn_bn,
    "resnet18": lambda shape, classes: resnet(shape, classes, (1, 1, 1, 1)),
    "resnet4": resnet4,
    "vgg": lambda shape, classes: vgg(shape, classes, 11),
    "wrn": lambda shape, classes: wrn(shape, classes, 16, 1),
}


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def used(net: nn.Module, random: torch.Generator) -> nn.Module:
    """As after a training: BatchNorm layers have numbers of their own."""
    for layer in norms(net.to(random.device)):
        for tensor, low, high in (
            (layer.weight, 0.5, 1.5),
            (layer.bias, -0.5, 0.5),
            (layer.running_mean, -0.5, 0.5),
            (layer.running_var, 0.5, 2.0),
        ):
            tensor.data.uniform_(low, high, generator=random)
    return net.eval()


def gradient(answer, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(answer(x).square().sum(), x)[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_answers_and_gradients_are_those_of_the_network(name, random):
    torch.manual_seed(0)
    net = used(NETWORKS[name](SHAPE, 5), random).double()
    x = torch.randn(4, *SHAPE, generator=random, dtype=torch.float64)
    fast, count = fold_batch_norms(net, SHAPE), len(norms(net))
    assert torch.allclose(fast(x), net(x), rtol=1e-9, atol=1e-9)
    assert torch.allclose(gradient(fast, x), gradient(net, x), rtol=1e-6, atol=1e-9)
    assert len(norms(fast)) < count == len(norms(net))
    # where BatchNorm comes before its convolution, some cannot be folded
    assert name == "wrn" or not norms(fast)


class Trouble(nn.Module):
    """A network that cannot be folded."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.conv, self.norm, self.other = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.other.running_mean.fill_(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "branches" and x.mean() > 0:
            x = -x
        if self.kind == "noise":
            x = x + torch.randn(x.shape[1:])
        y = self.norm(self.conv(x))
        if self.kind == "twice":
            y = y + self.other(self.conv(x))
        return y.mean((2, 3))


@pytest.mark.parametrize("kind", ["branches", "noise", "twice"])
def test_a_network_that_would_answer_otherwise_stays_as_it_is(kind, random):
    net, x = Trouble(kind).eval(), torch.randn(4, 1, 8, 8, generator=random)
    assert fold_batch_norms(net, (1, 8, 8)) is None
    assert fold_batch_norms(Trouble("none").eval(), (1, 8, 8)) is not None
    teacher = Teacher(net, (1, 8, 8), 3, [0.0], [1.0])
    if kind != "noise":
        assert torch.equal(teacher.forward_normalized(x), teacher.net(x))


def test_a_network_without_batch_norm_has_nothing_to_fold():
    assert fold_batch_norms(cnn((1, 28, 28), 3), (1, 28, 28)) is None


@pytest.fixture
def teacher(random) -> Teacher:
    torch.manual_seed(0)
    return Teacher(used(cnn_bn((1, 8, 8), 3, widths=(4, 6)), random), (1, 8, 8), 3, [0.5], [0.3])


def test_a_teacher_counts_what_it_answers_to(teacher, random):
    x = torch.randn(5, 1, 8, 8, generator=random)
    with teacher.counted_as("synthesis"):
        found = teacher.forward_normalized(x)
    assert torch.allclose(found, teacher.net(x), atol=1e-6) and not torch.equal(found, teacher.net(x))
    assert teacher.evals == {"synthesis": 5, "other": 10}  # the answers of `net`, too


def test_nothing_is_folded_while_a_layer_is_watched(teacher, random):
    x = torch.randn(5, 1, 8, 8, generator=random)
    teacher.forward_normalized(x)
    with watch_batch_norms(teacher.net) as seen:
        assert torch.equal(teacher.forward_normalized(x), teacher.net(x))
    assert len(seen) == 2


@pytest.mark.cpu("on a GPU there is another layer, which has it within")
def test_a_teacher_that_moves_folds_anew(teacher, random):
    x = torch.randn(5, 1, 8, 8, generator=random)
    teacher.forward_normalized(x)
    teacher.double().to(memory_format=torch.channels_last)
    found = teacher.forward_normalized(x.double())
    assert found.dtype == torch.float64 and torch.allclose(found, teacher.net(x.double()), rtol=1e-12)
    assert not torch.equal(found, teacher.net(x.double()))
    assert teacher._fast[0].get_submodule("body.4").weight.is_contiguous(memory_format=torch.channels_last)
    assert len(teacher.state_dict()) == len(teacher.net.state_dict())  # it is no part of the teacher's weights
