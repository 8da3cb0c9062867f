"""`make gpu` at toy size on a CPU: both halves, their deadlines, and the page made of what they leave."""

import functools
import io
import json
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from runner import ROOT, command_line
from test_scripts import script

from dfkd.machine.runtime import Runtime

sys.path.append(str(ROOT / "scripts"))
from benchmark import commands
from benchmark.measure import Bench
from gpu import (
    about,
    clock,
    command,
    compose,
    data,
    field,
    page,
    record,
    right,
    rows,
    speed,
    teachers,
    ways,
    whole,
    work,
)
from gpu.same_numbers import same_numbers


@pytest.fixture
def make(tmp_path):
    """Run scripts/make_gpu.py at toy size; returns the folder of its records and its page."""

    def run(*words: str) -> tuple:
        measured, text = tmp_path / "measured", tmp_path / "gpu.md"
        places = ["--measured", str(measured), "--page", str(text), "--out", str(tmp_path / "out")]
        script("make_gpu").main([*words, "--toy", "--device", "cpu", *places])
        return measured, text.read_text()

    return run


# --- clocks


def test_a_deadline_ends_what_runs():
    began = time.monotonic()
    with pytest.raises(clock.TimeUp), clock.Deadline(0.2).enforced():
        time.sleep(5)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("deaf", [False, True])
def test_a_command_is_asked_to_stop_and_then_ended(monkeypatch, deaf):
    monkeypatch.setattr(clock, "GRACE", 0.3)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(clock.TimeUp):
        clock.run([sys.executable, "-c", code] if deaf else ["sleep", "60"], clock.Deadline(1.0))
    assert time.monotonic() - began < 4
    assert clock.run([sys.executable, "-c", "raise SystemExit(3)"], clock.Deadline(30)) == 3


# --- data


def pictures(count: int) -> np.ndarray:
    """Pictures of one colour each, which JPEG keeps to within a few levels."""
    colours = np.random.default_rng(0).integers(0, 255, (count, 1, 1, 3), dtype=np.uint8)
    return np.broadcast_to(colours, (count, 32, 32, 3)).copy()


def pack(file) -> None:
    """A pack as the one of CIFAR-10: JPEG pictures without the header that they share and without their end."""
    parts = {}
    for split, count in (("train", 3), ("test", 2)):
        files = []
        for picture in pictures(count):
            out = io.BytesIO()
            Image.fromarray(picture).save(out, "JPEG", quality=75)
            files.append(out.getvalue())
        start = files[0].index(b"\xff\xda")
        header, scans = files[0][:start], [picture[start:-2] for picture in files]
        parts[f"scan_{split}"] = np.frombuffer(b"".join(scans), np.uint8)
        parts[f"len_{split}"], parts[f"y_{split}"] = np.array([len(scan) for scan in scans]), np.arange(count)
    np.savez(file, header=np.frombuffer(header, np.uint8), **parts)


def test_the_pack_is_unpacked_once(tmp_path):
    pack(tmp_path / data.PACK)
    words = data.options(tmp_path, tmp_path / "work")
    archive = tmp_path / "work" / data.ARCHIVE
    assert f"ntl_scenario.id.path={archive}" in words and "ntl_scenario.id.label=cifar10" in words
    with np.load(archive) as arrays:
        assert arrays["x_train"].shape == (3, 32, 32, 3) and arrays["y_test"].tolist() == [0, 1]
        assert abs(arrays["x_train"].astype(int) - pictures(3)).max() < 10
    before = archive.stat().st_mtime_ns
    data.options(tmp_path / data.PACK, tmp_path / "work")
    assert archive.stat().st_mtime_ns == before


def test_archives_and_torchvisions_folders_are_taken_as_they_are(tmp_path):
    np.savez(tmp_path / data.ARCHIVE, x_train=pictures(2))
    assert f"ntl_scenario.id.path={tmp_path / data.ARCHIVE}" in data.options(tmp_path, tmp_path / "work")
    (tmp_path / data.FOLDER).mkdir()
    expected = ["domain@ntl_scenario.id=cifar10", f"data.root={tmp_path}"]
    assert data.options(tmp_path, tmp_path / "work") == expected and not (tmp_path / "work").exists()
    with pytest.raises(FileNotFoundError, match="no CIFAR-10 in"):
        data.options(tmp_path / "elsewhere", tmp_path)


# --- rows and commands


def test_rows_are_kept_unless_another_machine_or_commit_measured_them(tmp_path):
    out, calls = tmp_path / "rows.json", []
    measures = [(name, lambda name=name: calls.append(name) or {"right": True}) for name in ("a", "b")]
    for _ in range(2):
        rows.run("cpu", clock.Deadline(60), out, measures, tolerance=1)
    content = json.loads(out.read_text())
    assert calls == ["a", "b"] and content["tolerance"] == 1 and content["rows"]["b"] == {"right": True}
    about.write(out, content | {"commit": "another"})
    rows.run("cpu", clock.Deadline(60), out, measures, only="b")
    found = json.loads(out.read_text())
    assert calls == ["a", "b", "b"] and found["commit"] == content["commit"]
    assert found["rows"] == {"a": {"commit": "another", "right": True}, "b": {"right": True}}
    about.write(out, content | {"card": "another"})
    rows.run("cpu", clock.Deadline(60), out, measures, only="b")
    assert calls == ["a", "b", "b", "b"] and json.loads(out.read_text())["rows"] == {"b": {"right": True}}


def test_a_row_that_failed_is_measured_again(tmp_path):
    out, answers = tmp_path / "rows.json", [{"right": False, "error": "no memory"}, {"right": True}]
    for expected in list(answers):
        content = rows.run("cpu", clock.Deadline(60), out, [("a", lambda: answers.pop(0))])
        assert content["rows"] == {"a": expected}
    rows.run("cpu", clock.Deadline(60), out, [("a", lambda: pytest.fail("it was measured already"))])


def test_rows_of_an_earlier_commit_say_so(tmp_path):
    machine = {"card": "a card", "torch": "2", "python": "3", "commit": "new", "date": "today"}
    told = {"right": True, "compared": "both"}
    for name in ("ways", "whole"):
        names = list(ways.MEASURES if name == "ways" else whole.MEASURES)
        about.write(
            tmp_path / f"{name}.json", machine | {"rows": {names[0]: {"commit": "older"} | told, names[1]: told}}
        )
    text = page.gpu_page(tmp_path)
    first, second, *_ = whole.MEASURES
    assert text.count("| what | right | what was compared | at commit |") == 2
    assert f"| {first} | yes | both | older |" in text and f"| {second} | yes | both |  |" in text


def test_a_command_that_fails_is_told_by_its_last_line(tmp_path):
    start = (sys.executable, "-c", "print('first'); raise SystemExit('no such thing')")
    with pytest.raises(command.CommandFailed, match=r"dfkd a=b ended with 1: no such thing"):
        command.run(["a=b"], tmp_path / "new", clock.Deadline(60), start)


def test_cells_share_a_gpu_and_take_turns_on_a_cpu():
    assert "hydra/launcher=gpus" in command.beside("cuda")
    assert "hydra.launcher.devices=[cuda:1]" in command.beside("cuda:1")
    assert "hydra/launcher=basic" in command.beside("cpu")


@pytest.fixture
def no_process(monkeypatch):
    """Commands are run in this process."""

    def run(words, *_):
        done = command_line(*words)
        assert done.code == 0, done.err
        return done.out + done.err

    monkeypatch.setattr(command, "run", run)


# --- half 1


def test_streams_draw_the_same_numbers_for_every_device():
    plain = torch.randn(4, generator=Runtime(torch.device("cpu")).generator(3, "a"))
    with same_numbers():
        own = Runtime(torch.device("cpu")).generator(3, "a")
        assert torch.equal(torch.randn(4, generator=own, device=own.device), plain)
        far = Runtime(torch.device("meta")).generator(3, "a")
        assert torch.rand(2, generator=far, device=far.device).device == far.device


def test_every_synthesizer_defense_and_teacher_is_a_row():
    names = [name for name, *_ in right.compared()]
    assert len(names) == len(set(names)) and {"synthesizer fast", "defense escape", "teacher hntl"} <= set(names)


def test_half_one_finds_a_device_that_computes_the_same_and_goes_on_where_it_was(make, monkeypatch):
    measured, text = make("right", "--only", "synthesizer dfq")
    row = json.loads((measured / "right.json").read_text())["rows"]["synthesizer dfq"]
    assert row["right"] and row["difference"] == 0 and 0 < row["rounding"] < 0.1
    assert "| synthesizer dfq | yes |" in text and "| synthesizer fast | not measured |" in text
    monkeypatch.setattr(right, "compare", lambda *_: pytest.fail("it is there"))
    make("right", "--only", "synthesizer dfq")


def test_the_speed_is_a_table_of_the_page_and_ends_in_time(tmp_path, monkeypatch):
    out = tmp_path / "bench.json"
    with monkeypatch.context() as patch:
        patch.setattr(speed, "_case", lambda *_: time.sleep(5))
        speed.run("cpu", clock.Deadline(0.1), out, toy=True)
    assert json.loads(out.read_text())["rows"] == {} and "bench.py`): not measured" in page.gpu_page(tmp_path)
    speed.run("cpu", clock.Deadline(60), out, toy=True)
    content = json.loads(out.read_text())
    (row,) = content["rows"]["matrix_product"]["rows"]
    assert content["precision"] and f"| {row['what']} | the clock | " in page.gpu_page(tmp_path)
    content["rows"]["dfq"] = {"right": False, "error": "ValueError: a | b"}
    about.write(out, content)
    assert r"| dfq |  | **fails** |  |  |  | ValueError: a \| b |" in page.gpu_page(tmp_path)


@pytest.mark.parametrize(
    ("goal", "met", "said"),
    [
        (None, True, "| cake | bare | 1.60 | 321 | none |  | yes |"),
        ({"kind": "at least", "value": 2}, False, "| cake | bare | 1.60 | 321 | at least 2 | **no** | yes |"),
    ],
)
def test_a_row_of_the_speed_has_operations_a_second(tmp_path, goal, met, said):
    row = {"what": "cake", "against": "bare", "median": 1.6, "unit": "ratio", "goal": goal, "met": met}
    row |= {"correct": True, "rates": {"ours, TFLOP/s": 321.4}}
    machine = {"card": "a card", "torch": "2", "python": "3", "commit": "new", "date": "today"}
    about.write(tmp_path / "bench.json", machine | {"rows": {"cnn_synthesis": {"rows": [row]}}})
    assert said in page.gpu_page(tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("start", [command.DFKD, command.TORCHRUN])
def test_a_run_in_an_empty_folder_and_by_torchrun_gives_the_same_student(start):
    """Starts a process, which is what it is about."""
    row = ways.same_student(start, "cpu", clock.Deadline(120))
    assert row["right"] and "this process: 0.0e+00 (0.02)" in row["compared"], row


def test_another_student_is_not_right(no_process, monkeypatch):
    run = command.run
    monkeypatch.setattr(command, "run", lambda words, *rest: run([*words, "seed=1"], *rest))
    row = ways.same_student(command.DFKD, "cpu", clock.Deadline(120))
    assert not row["right"] and "(0.02)" in row["compared"]


@pytest.mark.exhaustive
def test_a_profile_says_what_the_phases_take(no_process):
    row = ways.profile("cpu", clock.Deadline(120), toy=True)
    assert row["right"] and "the student's stage: " in row["compared"] and "synthesis" in row["compared"]


def stopped(*_) -> str:
    raise clock.TimeUp


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (
            lambda *_: "  profile  teacher: 0.1 s\n  profile  student: 2.9 s, synthesis 60 %, distill 30 %",
            "2.9 s, synthesis",
        ),
        (lambda *_: "  profile  student: 1.0 s, aten::add 90 %", "1.0 s, aten::add"),
        (lambda *_: "", "nothing"),
        (stopped, "it had not ended after 40 s"),
    ],
)
def test_a_profile_has_to_name_the_phases_and_to_end(monkeypatch, printed, said):
    monkeypatch.setattr(command, "run", printed)
    row = ways.profile("cpu", clock.Deadline(120))
    assert row["right"] == ("synthesis" in said) and said in row["compared"]


def test_the_end_of_the_half_is_no_fault_of_the_profiler(monkeypatch):
    monkeypatch.setattr(command, "run", stopped)
    with pytest.raises(clock.TimeUp):
        ways.profile("cpu", clock.Deadline(5))


def row_of(difference: float) -> dict:
    return {"right": not difference, "difference": difference, "rounding": 0.0, "seconds": 1.0}


@pytest.mark.parametrize(("compare", "said"), [(lambda *_: row_of(0.5), "**no**"), (lambda *_: 1 / 0, "**fails**")])
def test_half_one_says_what_differs_or_fails(make, monkeypatch, compare, said):
    monkeypatch.setattr(right, "compare", compare)
    assert f"| defense atesc | {said} |" in make("right", "--only", "defense atesc")[1]


def test_half_one_stops_in_time_with_what_it_has(make, monkeypatch):
    monkeypatch.setattr(
        right, "compare", lambda options, *_: time.sleep(5) if options[0] == "synthesizer=fast" else row_of(0.0)
    )
    measured, _ = make("right", "--only", "synthesizer", "--minutes", "0.01", "1")
    rows = json.loads((measured / "right.json").read_text())["rows"]
    assert "synthesizer dfq" in rows and "synthesizer fast" not in rows and "synthesizer zskt" not in rows


@pytest.mark.exhaustive  # starts processes, which is what it is about
def test_rows_are_measured_beside_each_other_until_the_time_is_up(tmp_path):
    fine = [(f"row {number}", functools.partial(dict, right=True, seconds=number)) for number in range(5)]
    wrong, slow = ("wrong", functools.partial(int, "x")), ("slow", functools.partial(time.sleep, 600))
    began = time.monotonic()
    content = rows.run("cpu", clock.Deadline(40), tmp_path / "rows.json", [*fine, wrong, slow], workers=2)
    assert time.monotonic() - began < 50 and set(content["rows"]) == {*(name for name, _ in fine), "wrong"}
    assert content["rows"]["row 3"] == {"right": True, "seconds": 3} and not content["rows"]["wrong"]["right"]


# --- half 2


def in_this_process(*words: str) -> float:
    """What `commands.dfkd` does for cells in turn, which take a second; beside each other they are the same, and take a
    third of it."""
    outputs = Path(words[-1].partition("=")[2])
    if "hydra/launcher=gpus" in words:
        shutil.copytree(outputs.parent / "in_turn", outputs)
        return 0.3
    done = command_line(*words)
    assert done.code == 0, done.err
    return 1.0


def test_small_cells_beside_each_other_are_held_against_the_same_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "dfkd", in_this_process)
    row = whole.side_by_side("cpu", clock.Deadline(60), tmp_path, toy=True)
    assert row["right"] and row["ratio"] == 0.3
    assert "2 at once: 0.30 of the time one after the other (at most 1)" in row["compared"]


def test_a_cell_that_is_missing_beside_others_is_wrong(tmp_path, monkeypatch):
    one = {"cell": {"student_digest": "a"}}
    found = iter([one, {}])
    monkeypatch.setattr(commands, "dfkd", lambda *_: 1.0)
    monkeypatch.setattr(commands, "results", lambda _: next(found))
    row = whole.side_by_side("cpu", clock.Deadline(60), tmp_path, toy=True)
    assert not row["right"] and "students that differ or are missing: 2" in row["compared"]


@pytest.mark.exhaustive
def test_small_cells_share_a_place_on_the_cpu(tmp_path):
    """Starts the launcher's processes, as on a GPU."""
    (row,) = commands.side_by_side(Bench(Runtime(torch.device("cpu")), 1, True, tmp_path))
    assert row.correct and row.median > 0


def test_the_precisions_are_compared_by_whole_runs(no_process, tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "SEEDS", (0,))
    row = whole.precisions("cpu", clock.Deadline(60), tmp_path, toy=True)
    assert row["compared"].startswith("students' ID accuracy: float32 ") and ", bfloat16 " in row["compared"]


@pytest.mark.parametrize(
    ("coarse", "right"), [([98.0, 98.4, 98.2], True), ([97.0, 97.1, 97.2], False), ([99.2, 99.3, 99.4], False)]
)
def test_precisions_are_alike_within_the_spread_of_the_seeds(coarse, right):
    row = whole.within_spread({"float32": [98.1, 98.3, 98.7], "bfloat16": coarse})
    assert row["right"] == right and "by up to 0.60" in row["compared"]


def test_a_teacher_is_held_against_a_plain_loop(monkeypatch):
    monkeypatch.setattr(teachers, "SEEDS", (0,))
    monkeypatch.setattr(teachers, "EPOCHS", 2)
    ((name, measure),) = teachers.measures("cpu", ["domain@ntl_scenario.id=digits"], toy=True)
    told = measure()["compared"]
    plain = float(told.partition("plain ")[2].partition(";")[0])
    assert name == teachers.BESIDE_PLAIN and "after 2 epochs" in told and plain > 50


@pytest.mark.parametrize(("plain", "right"), [(90.0, True), (90.6, False), (88.9, False)])
def test_a_teacher_may_differ_by_half_a_point(monkeypatch, plain, right):
    made = SimpleNamespace(
        teacher=SimpleNamespace(network=None, train=lambda *_: None),
        scenario=SimpleNamespace(id=SimpleNamespace(test=None)),
        runtime=None,
    )
    monkeypatch.setattr(teachers, "prepare", lambda _: made)
    monkeypatch.setattr(teachers, "accuracy", lambda *_: 89.5)
    monkeypatch.setattr(teachers, "_plain", lambda *_: plain)
    assert teachers.beside_plain([])["right"] == right


@pytest.mark.parametrize(("seconds", "right"), [(61.0, True), (91.0, False)])
def test_the_short_recipe_has_to_be_done_in_time(seconds, right):
    teacher = {"name": "supervised_fast", "epochs": 20, "network": {"name": "resnet34"}}
    result = {"config": {"teacher": teacher}, "seconds": {"teacher": seconds}, "teacher": {"iacc": 94.8}}
    cells = [SimpleNamespace(finished_result=lambda found=found: found) for found in (None, result)]
    ((name, measure),) = teachers.fast(cells)
    assert measure()["right"] == right and name == teachers.SHORT and teachers.fast(cells[:1]) == []
    assert f"supervised_fast, resnet34: 94.8 on test images after 20 epochs in {seconds:.0f} s" in measure()["compared"]


@pytest.fixture
def no_cells(monkeypatch):
    """Nothing of half 2 but the field's table."""
    monkeypatch.setattr(whole, "measures", lambda *_: [])
    monkeypatch.setattr(teachers, "measures", lambda *_: [])


def test_without_cifar_only_what_needs_it_is_left_out(make, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        whole, "measures", lambda *_: [("12 small cells beside each other", lambda: {"right": True, "compared": "a"})]
    )
    measured, text = make("field", "--data", str(tmp_path))
    assert "| 12 small cells beside each other | yes | a |" in text and list(measured.iterdir()) == [
        measured / "whole.json"
    ]
    assert "most of half 2 is left out: there is no CIFAR-10" in capsys.readouterr().err


def one_method(shared: list[str], shares: dict[str, float]) -> list[field.Group]:
    return [field.Group({"noise_images": ["experiment=noise_images/cifar10_short"]}, shared), field.Group({}, shared)]


def test_half_two_leaves_a_record_and_a_row(make, no_cells, monkeypatch):
    """Starts a process, as it does for every cell."""
    monkeypatch.setattr(field, "groups", one_method)
    measured, text = make("field")
    content = json.loads((measured / "noise_images.json").read_text())
    assert 0 <= content["measured"]["id"] <= 100 and content["measured"]["minutes"] >= 0
    assert content["not_comparable"] and content["card"] and "commit" in content and content["measured"]["tflops"] > 0
    assert (
        "on test images after" in json.loads((measured / "whole.json").read_text())["rows"][teachers.SHORT]["compared"]
    )
    assert "| noise_images | 14.89 |" in text and "| fast | 94.05 | not measured |" in text


def test_half_two_stops_its_commands_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "GRACE", 0.5)
    monkeypatch.setattr(field, "groups", one_method)
    monkeypatch.setattr(field.Group, "command", lambda *_: ["sleep", "60"])
    began = time.monotonic()
    shared = ["domain@ntl_scenario.id=digits"]
    field.run("cpu", clock.Deadline(3), tmp_path, tmp_path / "measured", shared, toy=True)
    assert time.monotonic() - began < 20 and not list(tmp_path.glob("measured/*"))


@pytest.mark.parametrize(("method", "near"), [("dfq", 0.02), ("fast", 0.1), ("deepinversion", 0.1)])
def test_sizes_are_lowered_to_a_share_of_the_steps(method, near):
    cells = (compose.cell(f"experiment={method}/cifar10_short", *field.scaled(method, share)) for share in (1.0, 0.1))
    whole, part = (work.steps(cell.config) for cell in cells)
    assert part / whole == pytest.approx(0.1, rel=near)


def test_a_student_is_trained_on_full_batches_of_its_pool():
    student = {"steps": None, "epochs": 3, "recipe": {"batch_size": 32}}
    result = {"pool_labels": [40, 30], "config": {"student": student}}
    assert work.images_of_steps(result) == 3 * 2 * 32
    online = {"student": student | {"steps": 5}, "synthesizer": {"rounds": 7, "warm_up": 2}}
    assert work.images_of_steps({"pool_labels": None, "config": online}) == 5 * 5 * 32


def test_the_share_is_what_fits_into_the_time():
    assert field.scale(420, 14, 130) == 0.058 and field.scale(1e6, 14, 130) == 1 and field.scale(60, 2, 65) == 0.001


# --- the page


@pytest.mark.parametrize(
    ("share", "teacher", "known", "said"),
    [
        (1.0, 95.5, 95.7, None),
        (0.02, 95.5, 95.7, "2.0% of the recipe's steps"),
        (1.0, 86.4, 95.7, "teacher 86.4 instead of 95.7"),
        (1.0, 90.0, None, None),
    ],
)
def test_a_number_is_compared_only_with_the_same_recipe_and_teacher(share, teacher, known, said):
    told = {"id": {"value": 94.0}, "asr": None, "teacher": known and {"value": known}}
    assert record.why_not(share, teacher, told) == said
    assert record.why_not(1.0, 95.0, {"id": None, "asr": None, "teacher": None}) == "nothing is reported"


def test_the_pages_are_what_the_records_say():
    assert (ROOT / "docs/gpu.md").read_text() == page.gpu_page(about.MEASURED)
    table = f"{page.START}\n{page.readme_table(about.MEASURED)}\n{page.END}"
    assert table in (ROOT / "README.md").read_text()


def test_what_was_not_measured_stands_beside_what_was_reported(tmp_path):
    text = page.field_table(tmp_path)
    names = list(field.recipes())
    assert page.readme_table(tmp_path).startswith(f"So far, 0 of {len(names)} rows of the field's table")
    for number, name in enumerate(names, 1):
        (tmp_path / f"{record.file_name(name)}.json").write_text("{}")
        assert (page.readme_table(tmp_path) == text) == (number > len(names) / 2)
    assert "| cmi | 94.84 | not measured |" in text and "| dfq, backdoor, atesc |  | not measured |  | 2.9 |" in text


def test_without_a_gpu_it_says_how_to_try(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        script("make_gpu").main([])
    assert "--device cpu --toy" in capsys.readouterr().err


def test_a_trial_leaves_the_measurements_alone(capsys):
    with pytest.raises(SystemExit):
        script("make_gpu").main(["--toy", "--device", "cpu"])
    assert "a trial leaves docs/measured alone" in capsys.readouterr().err
