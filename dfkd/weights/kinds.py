"""Detects the format of a file from its content, because suffixes are not reliable."""

import shlex
import zipfile
from pathlib import Path

from dfkd.errors import ConfigError

TORCH, TORCH_OLD, SAFETENSORS, NPZ, PICKLE = "torch", "torch, old format", "safetensors", "npz", "pickle"
TORCH_OLD_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch's magic number, pickled

CONVERT = "convert it where it was made: torch.save(model.state_dict(), 'weights.pt')"
UNPACK = "unpack it, and name the file in it"
# First bytes of a file, its format, and advice to the user.
STARTS = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself", "fetch it: git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as of Keras or TensorFlow", CONVERT),
    (b"GGUF", "a GGUF file", CONVERT),
    (b"\x93NUMPY", "a single numpy array", "save all arrays by name with np.savez"),
    (b"\x1f\x8b", "a gzip archive", UNPACK),
    (b"BZh", "a bzip2 archive", UNPACK),
    (b"\xfd7zXZ\x00", "an xz archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
    (b"\x89PNG", "a PNG image", "name the file of weights"),
    (b"\xff\xd8\xff", "a JPEG image", "name the file of weights"),
    (b"%PDF", "a PDF document", "name the file of weights"),
)


def kind(file: Path) -> str:
    """Return the format of a weight file: TORCH, TORCH_OLD, SAFETENSORS, NPZ or PICKLE.

    Raises:
        ConfigError: the file has another format; the message names it and says what to do.
    """
    with file.open("rb") as stream:
        start = stream.read(512)
    if not start:
        raise ConfigError(f"{file} is empty, it seems truncated: download or copy it again")
    for magic, what, advice in STARTS:
        if start.startswith(magic):
            raise refused(file, what, advice)
    if start.startswith(b"PK\x03\x04"):
        return _kind_of_zip(file)
    if start.startswith(TORCH_OLD_START):
        return TORCH_OLD
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and length < 100_000_000:
        return SAFETENSORS
    if start[0] == 0x80 and start[1:2] <= b"\x05":
        return PICKLE
    raise _other(file, start)


def refused(file: Path, what: str, advice: str) -> ConfigError:
    return ConfigError(f"{file} cannot be read: it is {what}; {advice}")


def _kind_of_zip(file: Path) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read, it seems truncated: download or copy it again") from error
    parts = {name.split("/", 1)[-1] for name in names}
    if any(name.endswith(".npy") for name in names):
        return NPZ
    if "constants.pkl" in parts or any(part.startswith("code/") for part in parts):
        return _torch_script(file)
    if "data.pkl" in parts:
        return TORCH
    if {"archive_format", "serialized_exported_program.json"} & parts:
        raise refused(file, "a program of torch.export", CONVERT)
    if any(name.endswith(".weights.h5") for name in names):
        raise refused(file, "a network of Keras", CONVERT)
    inside = next((name for name in names if name.endswith((".pt", ".pth", ".ckpt", ".safetensors", ".bin"))), None)
    raise refused(file, "a zip archive" + (f" with {inside} in it" if inside else " without weights"), UNPACK)


def _torch_script(file: Path) -> str:
    code = f"import torch; torch.save(torch.jit.load({str(file)!r}, 'cpu').state_dict(), 'weights.pt')"
    advice = f"if you trust it, convert it: python -c {shlex.quote(code)}"
    raise refused(file, "a TorchScript archive, which is a program", advice)


def _other(file: Path, start: bytes) -> ConfigError:
    """Make an error for a file whose format the first bytes do not identify."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<body")):
        return refused(file, "a web page that was saved instead of the file", "download the file itself")
    if text.startswith((b"{", b"[")):
        return refused(file, "text in JSON", "name the file of weights that it belongs to")
    if start[4:8] == b"TFL3":
        return refused(file, "a TensorFlow Lite file", CONVERT)
    if start[257:262] == b"ustar":
        return refused(file, "a tar archive, or torch's format before 2017", UNPACK)
    if start[:1] == b"\x08" and start[2:3] in (b"\x12", b"\x3a", b"\x42"):  # protobuf: ir_version, then another field
        return refused(file, "an ONNX file", CONVERT)
    if file.suffix in (".pb", ".index", ".meta") or ".data-" in file.name or b"saved_model" in start:
        return refused(file, "a TensorFlow file", CONVERT)
    if not any(start):
        return ConfigError(f"{file} cannot be read: it holds zeros only, as after a download that was cut short")
    if all(byte >= 32 or byte in b"\t\r\n\f" for byte in start):
        return refused(file, "text", "name the file of weights")
    return ConfigError(
        f"{file} cannot be read: it seems truncated or is no checkpoint; give a state dict saved by torch.save, "
        f"safetensors, or npz"
    )
