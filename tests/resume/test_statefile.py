"""A file of plain data: whole or not at all, and damage is noticed."""

import errno
import os

import pytest
import torch

from dfkd.resume.state import CONSTANT, ObjectState, Reference
from dfkd.resume.statefile import read, write

CPU = torch.device("cpu")
DATA = {"a": [ObjectState("Linear", {"x": torch.arange(5.0)}), Reference("a[0]"), CONSTANT], "b": torch.tensor(True)}


def test_what_was_written_is_read(tmp_path):
    write(tmp_path / "file", {"key": "k"}, DATA)
    about, data = read(tmp_path / "file", CPU)
    assert about == {"key": "k"} and data["b"].item() is True
    node, same, constant = data["a"]
    assert (node.kind, node.data["x"].tolist(), same, constant) == (
        "Linear",
        [0, 1, 2, 3, 4],
        Reference("a[0]"),
        CONSTANT,
    )
    assert os.listdir(tmp_path) == ["file"]


def test_every_damage_is_noticed(tmp_path):
    file = tmp_path / "file"
    write(file, {"key": "k"}, DATA)
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(Exception):  # noqa: B017 (damage fails in too many ways to name)
            read(file, CPU)
    for size in range(0, len(whole), 50):
        file.write_bytes(whole[:size])
        with pytest.raises(Exception):  # noqa: B017
            read(file, CPU)


def test_nothing_else_than_plain_data_is_written_and_the_old_file_stays(tmp_path):
    write(tmp_path / "file", {}, 1)
    with pytest.raises(TypeError, match="object is no plain data"):
        write(tmp_path / "file", {}, [object()])
    assert read(tmp_path / "file", CPU)[1] == 1 and os.listdir(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    write(tmp_path / "file", {}, 1)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "file", {}, 2)
    assert read(tmp_path / "file", CPU)[1] == 1 and os.listdir(tmp_path) == ["file"]
