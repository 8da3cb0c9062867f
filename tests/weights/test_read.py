"""A file is known by its content, and one that is not a plain file of weights is named as what it is."""

import argparse
import io
import pickle
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dfkd.errors import ConfigError
from dfkd.weights import read

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


class Odd:
    """A class of somebody's own, whose objects would run code when they are read."""

    def __reduce__(self):
        return Path.touch, (Path("it-ran"),)


def torch_bytes(held: object, old: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(held, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


def zip_bytes(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return stream.getvalue()


def npz_bytes(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def safetensors_bytes(tmp_path) -> bytes:
    save_file(WEIGHTS, tmp_path / "saved")
    return (tmp_path / "saved").read_bytes()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz", ".ckpt", ""])
@pytest.mark.parametrize("kind", ["torch", "old", "safetensors", "npz"])
def test_a_file_is_known_by_its_content(tmp_path, kind, suffix):
    content = {
        "torch": lambda: torch_bytes(WEIGHTS),
        "old": lambda: torch_bytes(WEIGHTS, old=True),
        "safetensors": lambda: safetensors_bytes(tmp_path),
        "npz": lambda: npz_bytes(**{key: value.numpy() for key, value in WEIGHTS.items()}),
    }[kind]()
    (tmp_path / f"weights{suffix}").write_bytes(content)
    found = read(tmp_path / f"weights{suffix}")
    assert found.keys() == WEIGHTS.keys() and all(torch.equal(found[key], WEIGHTS[key]) for key in WEIGHTS)


def refusal(tmp_path, content: bytes, name: str = "weights.pt") -> str:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / name)
    said = str(caught.value)
    assert str(tmp_path / name) in said and "weights_only" not in said
    return said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (bytes(400), "zeros only"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>sign in</body></html>", "web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "web page"),
        (b'{"message": "Not Found"}', "JSON"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        (b"\x08\x07\x12\x07pytorch\x1a\x032.0" + bytes(40), "ONNX"),
        (b"\x1c\x00\x00\x00TFL3" + b"\x01" * 40, "TensorFlow Lite"),
        (b"GGUF\x03", "GGUF"),
        (b"\x1f\x8b\x08" + bytes(9), "gzip"),
        (b"\x93NUMPY\x01\x00", "numpy array"),
        (b"\x89PNG\r\n", "PNG"),
        (b"%PDF-1.4", "PDF"),
        (b"these are not weights\n", "text"),
        (b"\xf3\x01\xfe" * 30, "no checkpoint"),
        (zip_bytes("a/teacher.pth", "readme"), "zip archive with a/teacher.pth"),
        (zip_bytes("config.json", "model.weights.h5"), "Keras"),
        (zip_bytes("m/archive_format", "m/models/model.json"), "torch.export"),
        (zip_bytes("net/constants.pkl", "net/data.pkl"), "TorchScript"),
        (npz_bytes(a=np.array([{}], dtype=object)), "could run code"),
        (pickle.dumps({"a": Odd()}), "could run code"),
        (pickle.dumps([1, 2], protocol=0), "no checkpoint|text"),
        (torch_bytes(WEIGHTS)[:200], "truncated"),
        (torch_bytes(WEIGHTS, old=True)[:200], "truncated"),
    ],
)
def test_another_file_is_named_as_what_it_is(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    assert any(words in refusal(tmp_path, content) for words in said.split("|"))
    assert not Path("it-ran").exists()


def test_tensorflow_is_told_by_its_names(tmp_path):
    assert "TensorFlow" in refusal(tmp_path, b"\xf3\x01\xfe" * 30, "model.ckpt.data-00000-of-00001")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_folder_and_a_script_of_torch_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no checkpoint .* folder"):
        read(tmp_path)
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "net.pt")
    with pytest.raises(ConfigError, match=r"TorchScript archive.*torch\.jit\.load"):
        read(tmp_path / "net.pt")


@pytest.mark.parametrize("old", [False, True])
def test_the_way_to_convert_a_trusted_file_works(tmp_path, monkeypatch, old):
    """The command that the message names is the one that has to be typed."""
    (tmp_path / "it's a net.pt").write_bytes(torch_bytes({"state_dict": WEIGHTS, "made": Odd()}, old))
    with pytest.raises(ConfigError, match=r"not a plain state dict.*could run code") as caught:
        read(tmp_path / "it's a net.pt")
    assert not Path("it-ran").exists()
    run_command(str(caught.value), tmp_path, monkeypatch)
    assert torch.equal(read(tmp_path / "weights.pt")["state_dict"]["a.bias"], WEIGHTS["a.bias"])


def test_a_whole_network_says_how_to_save_its_weights(tmp_path, monkeypatch):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "net.pt")
    with pytest.raises(ConfigError, match="refused: it is a whole pickled network") as caught:
        read(tmp_path / "net.pt")
    run_command(str(caught.value), tmp_path, monkeypatch)
    assert read(tmp_path / "weights.pt")["weight"].shape == (3, 2)


@pytest.mark.parametrize("beside", [{}, {"made": Odd()}])
def test_a_pickle_of_arrays_says_how_to_convert_it(tmp_path, monkeypatch, beside):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a.bias": np.ones(2), **beside}))
    with pytest.raises(ConfigError, match="could run code") as caught:
        read(tmp_path / "w.pkl")
    run_command(str(caught.value), tmp_path, monkeypatch)
    assert read(tmp_path / "weights.pt")["a.bias"].tolist() == [1, 1]


def run_command(message: str, folder, monkeypatch) -> None:
    """Run what follows `python -c` at the end of a message."""
    monkeypatch.chdir(folder)
    *_, code = shlex.split(message[message.index("python -c") :])
    exec(code, {})


@pytest.mark.parametrize("old", [False, True])
def test_plain_data_beside_the_weights_is_no_reason_to_refuse(tmp_path, old):
    beside = {
        "args": argparse.Namespace(lr=0.1, data=Path("data")),
        "best": np.float64(93.5),
        "epoch": np.int64(9),
        "seen": torch.Size([2]),
    }
    (tmp_path / "w.pt").write_bytes(torch_bytes({"state_dict": WEIGHTS, **beside}, old))
    assert torch.equal(read(tmp_path / "w.pt")["state_dict"]["a.bias"], WEIGHTS["a.bias"])
