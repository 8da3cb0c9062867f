"""Reads weight files. They are not trusted: no code in them is ever executed."""

import argparse
import pathlib
import pickle
import pickletools
import re
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from safetensors.torch import load_file

from dfkd.errors import ConfigError
from dfkd.weights.kinds import NPZ, PICKLE, SAFETENSORS, TORCH, TORCH_OLD, kind

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "ema", "teacher", "student", "weights")
# Harmless types that training scripts save beside the weights: arguments, the best accuracy, a path.
_SCALAR = np.float64(0).__reduce__()[0]
HARMLESS = [
    argparse.Namespace,
    pathlib.PosixPath,
    np.dtype,
    *(type(np.dtype(name)) for name in ("bool", "int32", "int64", "float32", "float64")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def read(path: str | Path) -> object:
    """Read a weight file: tensors by name (safetensors, npz), or the object given to torch.save.

    Raises:
        ConfigError: the file does not exist, is damaged, has another format, or is a pickle that would execute code.
    """
    file = Path(path)
    if file.is_dir():
        raise ConfigError(f"there is no checkpoint {file.resolve()}, that is a folder; set teacher.path=FILE")
    if not file.is_file():
        raise ConfigError(f"there is no checkpoint {file.resolve()}; set teacher.path")
    try:
        return _READERS[kind(file)](file)
    except ConfigError:
        raise
    except PermissionError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except Exception as error:  # a damaged file raises too many different types to list
        reason = str(error).strip().partition("\n")[0]
        # Without torch's own message about weights_only, which recommends to switch the protection off.
        about = f": {reason}" if reason and "weights_only" not in reason else ""
        raise ConfigError(f"{file} cannot be read, it seems truncated or is no checkpoint{about}") from error


def _read_torch(file: Path) -> object:
    try:
        # An open stream, because torch.load decides by the suffix of a file name.
        with torch.serialization.safe_globals(HARMLESS), file.open("rb") as stream:
            return torch.load(stream, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise _unsafe(file, named[1] if named else "") from error


def _read_pickle(file: Path) -> object:
    raise _unsafe(file, "")


def _read_npz(file: Path) -> object:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ConfigError(
            f"{file} is refused: it holds arrays of Python objects, loading them could run code; "
            f"save plain arrays by name with np.savez, or safetensors"
        ) from error


_READERS = {
    TORCH: _read_torch,
    TORCH_OLD: _read_torch,
    PICKLE: _read_pickle,
    SAFETENSORS: load_file,
    NPZ: _read_npz,
}


def _unsafe(file: Path, name: str) -> ConfigError:
    """Make an error for a pickle that refers to code; it says which code, and how to convert a trusted file."""
    try:
        words = set(_words(file))
    except Exception as error:  # a truncated pickle cannot be parsed to its end
        return ConfigError(f"{file} cannot be read, it seems truncated or is no checkpoint ({type(error).__name__})")
    command = "python -c " + shlex.quote(f"import pickle, torch; torch.save({_converted(file, words)}, 'weights.pt')")
    what = "a whole pickled network" if _is_network(words) else "not a plain state dict"
    return ConfigError(
        f"{file} is refused: it is {what}, loading it could run code{f' ({name})' if name else ''}. "
        f"Ask for safetensors, or save model.state_dict() alone. If you trust the file, convert it once, where its "
        f"classes can be imported (this runs its code): {command}"
    )


def _converted(file: Path, words: set[str]) -> str:
    """Return a Python expression that loads a trusted pickle and selects the part to save."""
    load = f"torch.load({str(file)!r}, 'cpu', pickle_module=pickle)"
    if kind(file) == PICKLE:
        load = f"pickle.load(open({str(file)!r}, 'rb'))"
    if _is_network(words):
        return f"{load}.state_dict()"
    kept = [key for key in WRAPPERS if key in words]
    if kept:
        return f"{{k: v for k, v in {load}.items() if k in {kept}}}"
    return f"{{k: torch.as_tensor(v) for k, v in {load}.items() if hasattr(v, 'shape')}}"


def _is_network(words: set[str]) -> bool:
    return any(word.startswith("torch.nn.modules.") for word in words)


def _words(file: Path) -> Iterator[str]:
    """Yield the strings in a pickle and the names that it would import; nothing is executed."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(name) as stream:
                yield from _words_of(stream)
        return
    with file.open("rb") as stream:
        # The old format has three pickles before the object: a magic number, a version, the system.
        for _ in range(4 if kind(file) == TORCH_OLD else 1):
            yield from _words_of(stream)


def _words_of(stream: BinaryIO) -> Iterator[str]:
    for code, argument, _ in pickletools.genops(stream):
        if isinstance(argument, str):
            yield argument.replace(" ", ".", 1) if code.name == "GLOBAL" else argument
