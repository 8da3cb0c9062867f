"""Which cells are found, and how each ended, whatever state its files are in."""

import json
import os

import pytest

from dfkd.errors import ConfigError
from dfkd.report.runs import find, read
from dfkd.store.files import file_lock
from dfkd.store.run_folder import RunFolder


def names(*places) -> list[str]:
    return [run.name for run in find(list(places))]


def test_an_outputs_folder_its_runs_and_run_folders_are_the_same_cells_once(finished, tmp_path):
    cells = [finished(seed=seed) for seed in (0, 1)]
    expected = [cell.name for cell in cells]
    assert names(tmp_path) == names(tmp_path / "runs") == names(*cells) == names(tmp_path, *cells, tmp_path) == expected


def test_a_sweeps_list_gives_its_cells_in_its_order(finished, listed, tmp_path):
    a, b, other = finished(seed=0), finished(seed=1), finished(seed=2)
    sweep = listed((b, "done", None, ["seed=1"]), (a, "done", None, ["seed=0"]))
    assert names(sweep) == [b.name, a.name]
    assert names(tmp_path) == [b.name, a.name, other.name]  # and the sweeps order the whole folder


def test_a_moved_folder_is_found_beside_its_list(finished, listed, tmp_path):
    cell = finished()
    sweep = listed((f"/gone/runs/{cell.name}", "done", None, ["seed=0"]))
    (run,) = find([sweep])
    assert run.done and run.folder == cell


def test_of_one_command_before_and_after_a_change_of_its_files_the_newest_counts(finished, tmp_path):
    old, new, other = finished(iacc=10), finished(iacc=20), finished(seed=1)
    os.utime(old / "result.json", (1, 1))
    found = {run.folder: run for run in find([tmp_path])}
    assert [found[folder].done for folder in (old, new, other)] == [False, True, True]
    assert found[old].status == "replaced" and new.name in found[old].reason and found[old].command is None
    assert find([old])[0].done  # asked for alone


def test_a_cell_refused_before_it_had_a_folder_is_known_from_the_list(listed):
    (run,) = find([listed((None, "failed", "steps must be at least 1", ["student.steps=0", "a=b c"]))])
    assert (run.status, run.reason) == ("failed", "steps must be at least 1")
    assert run.command == "dfkd student.steps=0 'a=b c'"


def test_a_list_still_being_written_is_read_as_far_as_it_is(finished, listed):
    cell = finished()
    sweep = listed((cell, "done", None, []))
    sweep.write_text(sweep.read_text() + '{"number": 1, "fold')
    assert names(sweep) == [cell.name]


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_what_went_wrong_and_what_repeats_it(unfinished, status):
    folder = unfinished({"status": status, "error": "NonFiniteLoss: 'kd'", "command": "dfkd seed=0"})
    run = read(folder)
    assert (run.status, run.reason, run.command) == (status, "NonFiniteLoss: 'kd'", "dfkd seed=0")
    assert run.config["seed"] == 0 and run.result == {}


def test_a_cell_runs_as_long_as_a_process_holds_it(unfinished):
    folder = unfinished("running")
    with file_lock(folder / ".lock", "cell"):
        assert read(folder).status == "running"
    assert read(folder).status == "killed"


def test_the_retry_of_a_cell_that_does_not_say_it_comes_from_the_sweeps(unfinished, listed, tmp_path):
    cell = unfinished("interrupted")
    listed((cell, "failed", "first", ["seed=0"]))
    listed((cell, "failed", "second", ["seed=0", "tracker=files"]))
    (run,) = find([tmp_path])
    assert run.command == "dfkd seed=0 tracker=files"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": 3}', '{"config": {}, "student": {}}', "\x00"])
def test_a_damaged_result_is_no_result(finished, text):
    folder = finished()
    (folder / "result.json").write_text(text)
    run = read(folder)
    assert run.status == "damaged" and run.config["seed"] == 0


@pytest.mark.parametrize("text", ["", "a: [", "3", "seed: 0", "\x00"])
def test_without_a_whole_configuration_a_cell_is_still_listed(unfinished, text):
    folder = unfinished("running")
    (folder / "config.yaml").write_text(text)
    (folder / "status.json").write_text('{"status": "fai')
    run = read(folder)
    assert run.config == {} and run.status == "damaged"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("rnus", "there is no '{}'; did you mean 'runs'?"),
        ("nothing/like/it", "there is no '{}'"),
        ("empty", "{} holds no runs; name an outputs folder, run folders, or sweep lists (outputs/sweeps/*.jsonl)"),
        ("notes.txt", "{} is no list of a sweep (outputs/sweeps/*.jsonl)"),
    ],
)
def test_a_place_without_runs_is_named(finished, tmp_path, place, said):
    finished()
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_bytes(b"\xff\xfe hello")
    with pytest.raises(ConfigError) as error:
        find([tmp_path / place])
    assert str(error.value) == said.format(tmp_path / place)


def test_names_from_files_are_one_line_of_printable_text(finished):
    folder = finished(name="a\nb\x1b[31m", defense__name="c")
    result = json.loads((folder / "result.json").read_text())
    RunFolder(folder).renew_result(result | {"command": "dfkd\nrm \ud800\u202e-x"})
    run = read(folder)
    assert run.name == "a b [31m" and run.command == "dfkd rm  -x"
