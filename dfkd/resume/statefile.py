"""Plain data (`dfkd.resume.state`) in one safetensors file: storages as byte tensors, the rest as JSON in the header.

Tensors that share memory share it again when they are read, and have the same strides: the memory layout decides which
algorithm a convolution uses, and so the last bits of its result. The file contains no pickle, and a checksum covers all
of it.
"""

import hashlib
import json
import os
from collections import Counter, OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from dfkd.resume.state import CONSTANT, SCALARS, ObjectState, Reference

MAPS = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}


def write(file: Path, about: dict[str, str], data: Any) -> None:
    """Write data atomically: a reader sees the whole old or the whole new file, even after a crash of the machine.

    Args:
        about: {name: value} that identifies the data; `read` returns it too.
        data: plain data.

    Raises:
        OSError: the file cannot be written.
        TypeError: a value is not plain data.
    """
    encoder = Encoder()
    header = {"about": json.dumps(about), "data": json.dumps(encoder(data))}
    storages = encoder.storages or {
        "none": torch.zeros(1, dtype=torch.uint8)
    }  # safetensors 0.6.0 cannot read a file without tensors
    header["digest"] = _digest(header, storages)
    content = save(storages, header)
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(file: Path, device: torch.device) -> tuple[dict[str, str], Any]:
    """Read what `write` has written.

    Args:
        device: the device for tensors that were on a GPU; the others come to the CPU.

    Returns:
        (about, data).

    Raises:
        Exception: there is no such file, or it is damaged.
    """
    with safe_open(file, "pt") as stream:
        header = stream.metadata()
        storages = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118 (no dict)
    if header.pop("digest") != _digest(header, storages):
        raise ValueError("its content has changed")
    return json.loads(header["about"]), Decoder(storages, device)(json.loads(header["data"]))


def _digest(header: dict[str, str], storages: dict[str, Tensor]) -> str:
    digest = hashlib.sha256((header["about"] + header["data"]).encode())
    for name in sorted(storages):
        digest.update(memoryview(storages[name].numpy()))
    return digest.hexdigest()


class Encoder:
    """Converts plain data to JSON: scalars stay as they are, everything else becomes {kind: content}.

    Attributes:
        storages: {name: bytes} of the storages of all tensors converted so far.
    """

    def __init__(self):
        self.storages: dict[str, Tensor] = {}
        self._names: dict[tuple, str] = {}

    def __call__(self, data: Any) -> Any:
        if type(data) in SCALARS:
            return data
        if data is CONSTANT:
            return {"constant": None}
        if isinstance(data, ObjectState):
            return {"node": [data.kind, self(data.data)]}
        if isinstance(data, Reference):
            return {"same": data.path}
        if isinstance(data, Tensor):
            return {"tensor": self._tensor(data)}
        if isinstance(data, np.ndarray | np.generic):
            array = torch.from_numpy(np.array(data))  # a copy: not all of numpy's layouts are torch's
            return {"array": [self._tensor(array), isinstance(data, np.generic)]}
        if isinstance(data, dict):
            return {type(data).__name__: [[self(key), self(value)] for key, value in data.items()]}
        if isinstance(data, deque):
            return {"deque": [[self(item) for item in data], data.maxlen]}
        if type(data) in (list, tuple, set):
            return {type(data).__name__: [self(item) for item in data]}
        raise TypeError(f"{type(data).__name__} is no plain data")

    def _tensor(self, tensor: Tensor) -> list:
        storage = tensor.untyped_storage()
        address = (str(storage.device), storage.data_ptr())
        if address not in self._names or not storage.nbytes():
            name = self._names[address] = str(len(self.storages))
            self.storages[name] = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage).cpu()
        kind = str(tensor.dtype).removeprefix("torch.")
        where = [self._names[address], storage.device.type != "cpu", tensor.storage_offset()]
        return [kind, *where, list(tensor.shape), list(tensor.stride())]


class Decoder:
    """Converts the JSON of `Encoder` back to plain data; tensors that were on a GPU come to `device`."""

    def __init__(self, storages: dict[str, Tensor], device: torch.device):
        self.storages, self.device = storages, device

    def __call__(self, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        ((kind, content),) = data.items()
        if kind == "constant":
            return CONSTANT
        if kind == "node":
            return ObjectState(content[0], self(content[1]))
        if kind == "same":
            return Reference(content)
        if kind == "tensor":
            return self._tensor(*content)
        if kind == "array":
            array = self._tensor(*content[0]).numpy()
            return array[()] if content[1] else array
        if kind == "deque":
            return deque((self(item) for item in content[0]), content[1])
        if kind in MAPS:
            return MAPS[kind]({self(key): self(value) for key, value in content})
        return {"list": list, "tuple": tuple, "set": set}[kind](self(item) for item in content)

    def _tensor(self, kind: str, name: str, elsewhere: bool, offset: int, shape: list, stride: list) -> Tensor:
        if elsewhere:
            self.storages[name] = self.storages[name].to(self.device)
        storage = self.storages[name].untyped_storage()
        empty = torch.empty(0, dtype=getattr(torch, kind), device=storage.device)
        return empty.set_(storage, offset, shape, stride)
