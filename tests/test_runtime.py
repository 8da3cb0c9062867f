"""Device, precision, random streams, memory."""

import mmap

import pytest
import torch
from torch import nn

from dfkd.machine.runtime import PeakMemory, Runtime, device_name, make_runtime, seeded, stream_seed

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_auto_is_a_device_that_is_there():
    assert make_runtime().device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_named_device_precision_and_chunk_are_taken():
    runtime = make_runtime("cpu", "bfloat16", chunk=7)
    assert (runtime.device, runtime.precision, runtime.chunk) == (CPU, "bfloat16", 7)
    assert make_runtime("cpu", "float32").precision == "float32"


def test_a_device_is_named_by_what_computes(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert device_name(CPU).endswith(" CPU, 3 threads")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU of kind {device.index}")
    assert device_name(torch.device("cuda:1")) == "a GPU of kind 1"


def test_threads_are_set_only_when_asked_for():
    torch.set_num_threads(1)
    make_runtime("cpu")
    assert torch.get_num_threads() == 1
    make_runtime("cpu", threads=2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "gpu"}, r"runtime\.device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "meta"}, r"runtime\.device must be auto, cpu, cuda or cuda:N, got 'meta'"),
        ({"device": "cuda:99"}, r"runtime\.device=cuda:99, but "),
        ({"precision": "half"}, r"runtime\.precision must be auto, float32, tf32 or bfloat16, got 'half'"),
        ({"device": "cpu", "precision": "tf32"}, r"runtime\.precision=tf32, but .* CPU, .* has no TF32; set float32"),
        ({"pool": "disk"}, r"runtime\.pool must be auto, device or host, got 'disk'"),
        ({"vectorize": 1}, r"runtime\.vectorize must be true, .* or a number of students from 2 on, got 1"),
        ({"vectorize": "all"}, r"runtime\.vectorize must be true, .* or a number of students from 2 on, got 'all'"),
        ({"chunk": 0}, r"runtime\.chunk and runtime\.threads must be at least 1, got 0"),
        ({"checkpoint_every": -1}, r"runtime\.checkpoint_every must be seconds, or null for never, got -1"),
        ({"checkpoint_every": float("nan")}, r"runtime\.checkpoint_every must be seconds"),
        ({"threads": 0}, r"runtime\.chunk and runtime\.threads must be at least 1, got 1000 and 0"),
    ],
)
def test_what_cannot_be_is_named_with_what_can(options, said):
    with pytest.raises(ValueError, match=said):
        make_runtime(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_asked_for_and_absent_is_no_silent_fallback():
    with pytest.raises(ValueError, match=r"runtime\.device=cuda, but .* use runtime\.device=auto"):
        make_runtime("cuda")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_autocast_computes_in_the_precision(precision):
    with Runtime(CPU, precision).autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == getattr(torch, precision)


def test_streams_repeat_and_are_unrelated_to_each_other():
    runtime = Runtime(CPU)

    def draw(seed, *names):
        return torch.rand(1000, generator=runtime.generator(seed, *names))

    assert torch.equal(draw(0, "images", 3), draw(0, "images", 3))
    for other in (draw(1, "images", 3), draw(0, "images", 4), draw(0, "labels", 3)):
        assert abs(torch.corrcoef(torch.stack([draw(0, "images", 3), other]))[0, 1]) < 0.15


def test_a_stream_is_not_shifted_by_what_others_draw():
    runtime = Runtime(CPU)
    one, other = runtime.generator(0, "one"), runtime.generator(0, "other")
    torch.rand(10, generator=other)
    torch.rand(10)
    assert torch.equal(torch.rand(5, generator=one), torch.rand(5, generator=runtime.generator(0, "one")))


def test_stream_seeds_fit_every_generator():
    seeds = {stream_seed(seed, "stage", i) for seed in range(20) for i in range(20)}
    assert len(seeds) == 400 and all(0 <= seed < 2**63 for seed in seeds)


def test_seeded_repeats_inside_and_restores_outside():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with seeded(0, "network"):
        first = nn.Linear(3, 3).weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    with seeded(0, "network"):
        assert torch.equal(nn.Linear(3, 3).weight, first)
    with seeded(0, "other"):
        assert not torch.equal(nn.Linear(3, 3).weight, first)


def test_seeded_restores_after_an_error_too():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded(0, "network"):
        torch.rand(3)
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), before)


def test_a_placed_module_computes_the_same():
    torch.manual_seed(0)
    net, x = nn.Conv2d(3, 4, 3), torch.rand(2, 3, 8, 8)
    before = net(x)
    assert torch.allclose(Runtime(CPU).to_device(net)(x), before, atol=1e-6)


def test_peak_memory_sees_what_was_freed_again():
    peak = PeakMemory(CPU)
    start = peak.read()
    with mmap.mmap(-1, 100 * 2**20) as block:  # not torch's: that may sit in memory an earlier test has left behind
        for page in range(0, len(block), 4096):
            block[page] = 1
    assert start > 0 and peak.read() >= start + 60


@pytest.mark.parametrize(
    ("wish", "size", "home"), [("auto", 50, "cuda"), ("auto", 51, "cpu"), ("device", 1000, "cuda"), ("host", 1, "cpu")]
)
def test_a_pool_larger_than_half_of_what_is_free_lies_on_the_host(wish, size, home, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    assert Runtime(torch.device("cuda"), pool=wish).pool_device(size).type == home


def test_on_a_cpu_a_pool_is_where_it_computes():
    assert Runtime(torch.device("cpu")).pool_device(10**15).type == "cpu"
