"""`pytest --device`: the option reaches the tests, and what they make lies on the device (`tests.on_device`)."""

import subprocess
import sys
from pathlib import Path

import on_device
import pytest
import torch
from elsewhere import ELSEWHERE, Mixed, StreamThere, elsewhere
from on_device import asked_device, device_of_tests
from runner import ROOT, process_environment, run_on
from torch import nn

from dfkd.domains import Images
from dfkd.models import Teacher, mlp
from dfkd.training.augment import crop, draw_shifts

pytest_plugins = ["pytester"]


@pytest.fixture
def there():
    """This test runs on the stand-in for a GPU."""
    with elsewhere(), device_of_tests(ELSEWHERE):
        yield


def test_what_a_test_makes_lies_on_the_device(there):
    for made in (torch.rand(2), torch.tensor([1.0]), torch.arange(3), torch.zeros(2, 2)):
        assert made.device == ELSEWHERE
    assert torch.zeros(2, device="cpu").device.type == "cpu"
    assert torch.rand(2, requires_grad=True).requires_grad
    stream = torch.Generator().manual_seed(0)
    assert isinstance(stream, StreamThere) and isinstance(stream, torch.Generator)
    assert torch.rand(2, generator=stream).device == ELSEWHERE
    assert not isinstance(torch.Generator("cpu"), StreamThere)


def test_what_a_test_makes_has_the_same_numbers_on_every_device(there):
    torch.manual_seed(3)
    found = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(found.cpu(), torch.rand(2, device="cpu"))


def test_networks_and_pixels_that_a_test_uses_lie_on_the_device(there):
    teacher = Teacher(mlp((1, 2, 1), 3), (1, 2, 1), 3, [0.0], [1.0])
    images = Images(torch.zeros(4, 1, 2, 1, device="cpu"), torch.zeros(4, dtype=torch.long, device="cpu"))
    assert teacher(images.pixels()).device == nn.Linear(2, 1)(torch.ones(1, 2)).device == ELSEWHERE


def test_what_the_package_makes_in_a_wrong_place_is_an_error(there):
    with pytest.raises(Mixed):
        crop(torch.rand(2, 1, 4, 4), 1, draw_shifts(2, 1, torch.Generator("cpu").manual_seed(0)))


def test_on_the_cpu_nothing_is_changed():
    before = torch.Generator
    with device_of_tests(torch.device("cpu")):
        assert torch.Generator is before and torch.rand(2).device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpu", "--device must be cpu, cuda, cuda:N or elsewhere, got 'gpu'"),
        ("meta", "--device must be cpu, cuda, cuda:N or elsewhere, got 'meta'"),
        ("cuda:99", r"--device=cuda:99, but this machine has \d+ usable CUDA devices"),
    ],
)
def test_a_device_that_is_not_there_is_one_error(name, said):
    with pytest.raises(pytest.UsageError, match=said):
        asked_device(name)


def test_the_options_devices():
    assert asked_device("cpu").type == "cpu" and asked_device("elsewhere") == ELSEWHERE


def test_the_option_reaches_fixtures_marks_and_runs(pytester, monkeypatch):
    """In a suite of its own, with the hooks and fixtures of this one."""
    import runner

    monkeypatch.setattr(runner, "TINY", runner.TINY)
    run_on("cuda:1")
    assert "runtime.device=cuda:1" in runner.TINY and len(set(runner.TINY)) == len(runner.TINY)
    monkeypatch.setattr(on_device, "TESTS", str(pytester.path))
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text())
    pytester.makepyfile(
        """
        import pytest, torch

        def test_device(device, runtime, random):
            assert device == runtime.device == random.device == torch.rand(1).device != torch.device("cpu")

        @pytest.mark.cpu("digits")
        def test_of_the_cpu():
            raise AssertionError
        """
    )
    pytester.makeini("[pytest]\nmarkers =\n    cpu(reason): of the CPU\n    exhaustive: many\n")
    found = pytester.inline_run("--device", "elsewhere", "-p", "no:cacheprovider")
    found.assertoutcome(passed=1, skipped=1)


# Short ones that make networks, losses, images, generators and domains by themselves.
SAMPLE = (
    "test_evaluate.py::test_accuracy_is_the_percentage_of_hits",
    "defenses/test_trigger_adversary.py::test_the_same_generator_gives_the_same_term",
    "distill/test_feature_losses.py::test_the_distance_of_the_features_is_that_of_a_slow_loop",
    "measures/test_calibration.py",
    "models/test_up_conv.py::test_both_ways_give_the_same_map",
    "synthesizers/test_embeddings.py",
    "teachers/test_supervised.py::test_label_smoothing_spreads_a_share_of_the_target",
)


def test_a_sample_of_the_tests_mixes_no_devices():
    """Where nobody has a GPU, a test that mixes devices would be seen months later."""
    command = [sys.executable, "-m", "pytest", "--device", "elsewhere", "-p", "no:cacheprovider", "--tb=short"]
    files = [f"tests/{name}" for name in SAMPLE]
    done = subprocess.run([*command, *files], cwd=ROOT, env=process_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_torch_in_the_path_of_the_interpreter_is_not_torch(there):
    """The package may lie below a folder that is called torch, and is no part of torch for it."""
    made = {}
    exec(compile("import torch\nmade['one'] = torch.zeros(1)", "/opt/torch/dfkd/losses.py", "exec"), {"made": made})
    assert made["one"].device.type == "cpu"
