"""Small real objects that many tests share."""

import contextlib
import os
import pickle
from collections.abc import Generator
from unittest import mock

import pytest
import runner
import torch
from omegaconf import OmegaConf
from on_device import asked_device, device_of_tests, stand_in
from runner import with_pictures, without_pictures
from torch import nn

from dfkd.domains import Domain, Images, digits
from dfkd.machine.runtime import Runtime
from dfkd.models import Classifier, Teacher, cnn_bn
from dfkd.models.common import FeatureNet
from dfkd.recipe import Recipe
from dfkd.scenarios import none
from dfkd.teachers import Supervised

torch.set_num_threads(1)
LOAD, LOADED = OmegaConf.load, {}


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """`-n auto`: one more than there are cores, since some tests wait for processes that they have started."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else os.cpu_count() + 1


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="what computes: cpu, cuda, cuda:N, or elsewhere (a stand-in)")


def pytest_configure(config: pytest.Config) -> None:
    if asked_device(config.getoption("device")).type == "cuda":  # a wrong device ends pytest here
        runner.run_on(config.getoption("device"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On another device than the CPU, skip the tests that are marked as the CPU's."""
    for item in items if config.getoption("device") != "cpu" else ():
        for mark in item.iter_markers("cpu"):
            item.add_marker(pytest.mark.skip(reason=f"on the CPU only: {mark.args[0]}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """The stand-in for a GPU is there for the tests that run on it, and for what makes their fixtures."""
    on_it = "device" in getattr(item, "fixturenames", ())
    with stand_in(asked_device(item.config.getoption("device"))) if on_it else contextlib.nullcontext():
        return (yield)


@pytest.fixture(scope="session")
def device(pytestconfig) -> torch.device:
    """The device that `--device` names. A test that asks for it, or for a fixture made with it, runs on the device."""
    return asked_device(pytestconfig.getoption("device"))


@pytest.fixture(autouse=True)
def on_the_device(request):
    """What such a test makes lies on the device, too (`tests.on_device`)."""
    if "device" not in request.fixturenames:
        yield
        return
    with device_of_tests(request.getfixturevalue("device")):
        yield


@pytest.fixture(scope="session", autouse=True)
def no_pictures():
    """Runs and reports in this process draw no pictures, except in tests that ask for `pictures`."""
    with without_pictures():
        yield


def load_again(file: object) -> object:
    """What OmegaConf.load gives. A file that has not changed is parsed once."""
    if not hasattr(file, "fileno"):
        return LOAD(file)
    stat = os.stat(file.fileno())
    known = (file.name, stat.st_ino, stat.st_mtime_ns, stat.st_size)
    if known not in LOADED:
        LOADED[known] = pickle.dumps(LOAD(file))
    return pickle.loads(LOADED[known])


@pytest.fixture(scope="session", autouse=True)
def no_yaml_twice():
    """Hydra parses all YAML files anew for every command, a tenth of the time of the smallest sweep."""
    with mock.patch("omegaconf.OmegaConf.load", load_again):
        yield


@pytest.fixture(scope="session", autouse=True)
def no_interpolated_options():
    """Hydra prepares at every option for interpolations in defaults lists, a quarter of the time that composing takes.
    Ours have none; one that had would fail in the tests."""
    with mock.patch("hydra._internal.defaults_list._create_interpolation_map", lambda *_: None):
        yield


@pytest.fixture
def pictures():
    """Runs and reports in this test draw their pictures."""
    with with_pictures():
        yield


@pytest.fixture(scope="session")
def runtime(device) -> Runtime:
    """Without CUDA graphs, which would call what a test has put into a step only a few times."""
    return Runtime(device, capture="none")


@pytest.fixture
def random(device) -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def host_random() -> torch.Generator:
    """Of the CPU, for what is computed there on every machine."""
    return torch.Generator().manual_seed(0)


def linear_net(weight: list[list[float]], bias: list[float] | None = None) -> FeatureNet:
    """logits = weight x + bias on flattened images."""
    head = nn.Linear(len(weight[0]), len(weight))
    head.weight.data = torch.tensor(weight, dtype=torch.float32)
    head.bias.data = torch.tensor(bias or [0.0] * len(weight), dtype=torch.float32)
    return FeatureNet(nn.Flatten(), head)


@pytest.fixture(scope="session")
def linear():
    """Make a linear classifier of the given kind by its weights."""

    def make(weight, bias=None, shape=None, mean=(0.0,), std=(1.0,), kind=Teacher) -> Classifier:
        shape = shape or (1, len(weight[0]), 1)
        return kind(linear_net(weight, bias), shape, len(weight), list(mean), list(std)).eval()

    return make


@pytest.fixture(scope="session")
def small_digits() -> Domain:
    return digits(size=8)


@pytest.fixture(scope="session")
def trained(small_digits, runtime) -> Classifier:
    """A BatchNorm network that has learned the digits in two seconds; do not change it."""
    torch.manual_seed(0)
    recipe = Recipe(lr=0.1, batch_size=64)
    kind = Supervised(cnn_bn((1, 8, 8), 10, widths=(8, 16, 32)), recipe, epochs=8)
    return kind.train(none(small_digits), runtime, seed=0, log=lambda epoch, metrics: None)


@pytest.fixture
def teacher(trained) -> Teacher:
    """A frozen copy of `trained`."""
    net = cnn_bn((1, 8, 8), 10, widths=(8, 16, 32))
    net.load_state_dict(trained.net.state_dict())
    return Teacher(net, trained.shape, 10, trained.mean.flatten().tolist(), trained.std.flatten().tolist())


@pytest.fixture
def unchanged():
    """Snapshot a module; the returned function fails if its parameters, buffers, gradients or hooks changed."""

    def snapshot(module: nn.Module):
        before = {key: value.clone() for key, value in module.state_dict().items()}
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()]

        def check() -> None:
            for key, value in module.state_dict().items():
                assert torch.equal(value, before[key]), key
            assert all(p.grad is None for p in module.parameters())
            assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()] == hooks

        return check

    return snapshot


@pytest.fixture
def tiny_domain():
    """Make a domain of random images, on the CPU as every domain, whose first pixel tells the class."""

    def make(count=24, classes=3, shape=(1, 8, 8), seed=0, name="tiny") -> Domain:
        generator = torch.Generator("cpu").manual_seed(seed)

        def part() -> Images:
            y = torch.arange(count, device="cpu") % classes
            x = torch.rand(count, *shape, generator=generator) * 0.2
            x[:, :, 0, 0] = y.float()[:, None] / classes
            return Images(x, y)

        return Domain(name, classes, part(), part(), part())

    return make
