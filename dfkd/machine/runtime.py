"""Device, precision, seeded random streams and memory of a run."""

import contextlib
import ctypes
import hashlib
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dfkd.machine import distributed
from dfkd.machine.capture import MODES, CapturedStep, asking
from dfkd.machine.compiling import with_compiled_networks
from dfkd.machine.graphs import CUDAGraphs
from dfkd.machine.precision import PRECISIONS, float32_arithmetic, has_tf32


@dataclass(frozen=True)
class Runtime:
    """Where and how to compute. Nothing here may change a result beyond rounding.

    Attributes:
        device: 'cpu', 'cuda' or 'cuda:N'.
        precision: 'float32' (IEEE), 'tf32' (a GPU's convolutions in TF32) or 'bfloat16' (autocast), in the passes of
            synthesis and training. Losses, BatchNorm statistics, attacks and evaluation stay in IEEE float32.
        chunk: largest number of images in one forward pass where the batch size does not change the result: evaluation
            and attacks; also limits how many CAKE sets are optimised at once.
        profile: whether to profile each stage (`dfkd.machine.profiling`).
        vectorize: whether the students of `student.replicas` are trained side by side; None: only on a GPU. A number:
            at most so many side by side, and one group after the other.
        pool: where the images of a finished pool are stored: 'device', 'host' (the CPU's memory), or 'auto' (see
            `pool_device`).
        capture: whether training steps are recorded as CUDA graphs: 'auto' (where it is faster), 'none' or 'graph'
            (`dfkd.machine.capture`). On a CPU there are none.
        compile: whether the teacher is compiled in recorded steps (`dfkd.machine.compiling`).
    """

    device: torch.device
    precision: str = "float32"
    chunk: int = 1000
    profile: bool = False
    vectorize: bool | int | None = None
    pool: str = "auto"
    capture: str = "auto"
    compile: bool = False

    def pool_device(self, size: int) -> torch.device:
        """Return the device on which to store images of a pool.

        With `pool='auto'` this is the compute device, or the CPU if they would take more than half of a GPU's free
        memory.

        Args:
            size: bytes of the images.
        """
        if self.pool == "auto" and self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return self.device if size <= free / 2 else torch.device("cpu")
        return torch.device("cpu") if self.pool == "host" else self.device

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return a context manager for the forward passes that are computed in the run's precision."""
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return self.gradients()

    def gradients(self) -> contextlib.AbstractContextManager:
        """Return a context manager for the gradients of what was computed under `autocast`.

        Only tf32 needs it: what was computed in bfloat16 has bfloat16 gradients anywhere.
        """
        return float32_arithmetic("tf32") if self.precision == "tf32" else contextlib.nullcontext()

    @property
    def captures(self) -> bool:
        """Whether steps may be recorded as CUDA graphs."""
        return self.capture != "none" and self.device.type == "cuda"

    def captured(
        self, name: str, function: Callable[..., Any], plain: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        """Return a function that does the same as `function`, as a CUDA graph where that is faster.

        Args:
            name: what is computed, for the log.
            function, plain: see `CapturedStep`.
        """
        if not self.captures:
            return asking(function if plain is None else plain)
        if self.compile:
            plain = function if plain is None else plain
            function = with_compiled_networks(function) or function
        return CapturedStep(name, function, self.capture, CUDAGraphs(self.device), plain)

    def to_device(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, its 4-D tensors in channels_last: convolutions are faster with it on GPUs, and
        for small images on CPUs."""
        return module.to(self.device).to(memory_format=torch.channels_last)

    def generator(self, seed: int, *names: str | int) -> torch.Generator:
        """Return a random generator for one purpose; numbers that other generators draw do not shift it."""
        return torch.Generator(self.device).manual_seed(stream_seed(seed, *names))


def make_runtime(
    device: str = "auto",
    precision: str = "auto",
    chunk: int = 1000,
    threads: int | None = None,
    checkpoint_every: float | None = None,
    profile: bool = False,
    vectorize: bool | int | None = None,
    pool: str = "auto",
    capture: str = "auto",
    compile: bool = False,
) -> Runtime:
    """Check the options of the section `runtime` and prepare this process.

    Args:
        device: 'auto' (CUDA if available), 'cpu', 'cuda', 'cuda:N'. With several ranks, 'auto' or 'cuda' gives each
            rank a CUDA device of its own.
        precision: 'float32', 'tf32', 'bfloat16', or 'auto': the least exact one that the hardware has instructions for.
            A run then measures whether it is faster than a more exact one (`dfkd.stages.precision`).
        chunk: see `Runtime`.
        threads: number of threads of torch's CPU kernels; None for torch's default.
        checkpoint_every: seconds from one checkpoint of a stage to the next; None: never. Only checked here.
        profile, vectorize, pool, capture, compile: see `Runtime`.

    Raises:
        ValueError: the device does not exist or has no TF32, or a value is out of range.
    """
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(f"runtime.precision must be auto, float32, tf32 or bfloat16, got '{precision}'")
    if pool not in ("auto", "device", "host"):
        raise ValueError(f"runtime.pool must be auto, device or host, got '{pool}'")
    if capture not in MODES:
        raise ValueError(f"runtime.capture must be auto, none or graph, got '{capture}'")
    if not isinstance(compile, bool):
        raise ValueError(f"runtime.compile must be true or false, got {compile!r}")
    if not (vectorize is None or isinstance(vectorize, bool) or (isinstance(vectorize, int) and vectorize > 1)):
        raise ValueError(
            f"runtime.vectorize must be true, false, null or a number of students from 2 on, got {vectorize!r}"
        )
    if chunk < 1 or (threads is not None and threads < 1):
        raise ValueError(f"runtime.chunk and runtime.threads must be at least 1, got {chunk} and {threads}")
    if checkpoint_every is not None and not checkpoint_every >= 0:
        raise ValueError(f"runtime.checkpoint_every must be seconds, or null for never, got {checkpoint_every}")
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    where = _device(device) if distributed.ranks() == 1 else _of_this_rank(device)
    if where.type == "cuda" and where.index is not None:
        torch.cuda.set_device(where)  # so that no tensor is put on another one by default
    if precision == "tf32" and not has_tf32(where):
        raise ValueError(f"runtime.precision=tf32, but {device_name(where)} has no TF32; set float32, or auto")
    precision = precisions_of(where)[-1] if precision == "auto" else precision
    return Runtime(where, precision, chunk, profile, vectorize, pool, capture, compile)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"runtime.device must be auto, cpu, cuda or cuda:N, got '{name}'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"runtime.device={name}, but this machine has no usable CUDA device; use runtime.device=auto")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise ValueError(f"runtime.device={name}, but there are {torch.cuda.device_count()} CUDA devices, from cuda:0")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"runtime.device must be auto, cpu, cuda or cuda:N, got '{name}'")
    return device


def _of_this_rank(name: str) -> torch.device:
    """Return the device of one of several ranks: the CUDA device with the number of its local rank, or the CPU."""
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        device = _device(name)
        if device.type == "cuda":
            raise ValueError(f"runtime.device={name}, but of several ranks each takes its own; set runtime.device=auto")
        return device
    number, there = distributed.local_rank(), torch.cuda.device_count()
    if number >= there:
        raise ValueError(
            f"rank {distributed.rank()} has no CUDA device; set torchrun --nproc-per-node to {there} at most"
        )
    return torch.device("cuda", number)


def device_name(device: torch.device) -> str:
    """Return the name of a device: the model of the GPU, or the architecture and number of threads of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def precisions_of(device: torch.device) -> list[str]:
    """Return the precisions that a device has instructions for, from the most exact one on."""
    can = {"float32": True, "tf32": has_tf32(device), "bfloat16": multiplies_bfloat16(device)}
    return [name for name in PRECISIONS if can[name]]


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 instructions. To emulate them on a CPU is ten times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo")
    text = flags.read_text() if flags.exists() else ""
    return "avx512_bf16" in text or "amx_bf16" in text


def keep_freed_memory() -> None:
    """Set glibc's malloc to reuse large freed blocks instead of returning them to the operating system.

    torch allocates every activation anew. With glibc's defaults each one is mapped, page-faulted and unmapped again,
    which costs more than half of the time of a small CNN at batch size 1000 on a CPU. Does nothing without glibc.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)


def stream_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the random stream `names` of a run. Other names give independent streams."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@contextlib.contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Seed torch's global generators inside the block (for module initialisation and dropout), and restore their state
    after it."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        # torch.manual_seed would format a traceback for each kind of accelerator that this machine does not have
        torch.default_generator.manual_seed(stream_seed(seed, *names))
        if devices:
            torch.cuda.manual_seed_all(stream_seed(seed, *names))
        yield


class PeakMemory:
    """The largest memory in use since this object was created, in MiB: allocated on the CUDA device, or resident memory
    of this process on a CPU."""

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # Linux: reset the high-water mark

    def read(self) -> float:
        if self.device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
        status = Path("/proc/self/status")
        if status.exists():
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return round(int(line.split()[1]) / 1024, 1)
        import resource

        unit = 2**20 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
