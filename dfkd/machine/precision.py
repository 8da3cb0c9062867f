"""The arithmetic of float32 tensors: IEEE float32, except where a run asks for less.

By default torch lets a GPU's convolutions round their float32 inputs to TF32, which keeps 10 of the 23 bits of the
mantissa. A run therefore switches TF32 off, and `Runtime.autocast` switches it on where the run's precision is tf32.
"""

import contextlib
from collections.abc import Iterator

import torch

PRECISIONS = ("float32", "tf32", "bfloat16")  # of a run, from the most exact one on


@contextlib.contextmanager
def float32_arithmetic(convolutions: str) -> Iterator[None]:
    """Inside the block, float32 convolutions on a GPU compute as `convolutions` says, and float32 matrix products in
    IEEE float32. torch's flags are restored afterwards. On a CPU nothing changes.

    Args:
        convolutions: 'ieee' or 'tf32'.
    """
    before = _flags()
    _set_flags(convolutions, convolutions, "ieee")
    try:
        yield
    finally:
        _set_flags(*before)


@contextlib.contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Inside the block, float32 tensors are computed in IEEE float32, whatever the surrounding precision is."""
    can = torch.amp.is_autocast_available(device.type)
    no_autocast = torch.autocast(device.type, enabled=False) if can else contextlib.nullcontext()
    with no_autocast, float32_arithmetic("ieee"):
        yield


def has_tf32(device: torch.device) -> bool:
    """Return whether a device can multiply in TF32: NVIDIA's GPUs from compute capability 8.0 (Ampere) on."""
    return (
        device.type == "cuda" and torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def _flags() -> tuple[str, str, str]:
    """Return torch's flags for convolutions, recurrent layers and matrix products: 'ieee', 'tf32' or 'none' each."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    return cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, products.fp32_precision


def _set_flags(convolutions: str, recurrent: str, products: str) -> None:
    """Set torch's flags (see `_flags`).

    The older flags `allow_tf32` are set first and to the same: torch raises an error when one of them is read, by
    another library for instance, and contradicts the new flags. Setting them resets the new flags.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    cudnn.allow_tf32, matmul.allow_tf32 = convolutions == "tf32", products == "tf32"
    cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = convolutions, recurrent
    matmul.fp32_precision = products
