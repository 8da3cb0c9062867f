"""`make gpu` at toy size on a CPU: both halves, their deadlines, and the page made of what they leave."""

import io
import json
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from runner import ROOT
from test_scripts import script

from dfkd.machine.runtime import Runtime

sys.path.append(str(ROOT / "scripts"))
from gpu import about, clock, compose, data, field, page, record, right, speed
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
    assert clock.run([sys.executable, "-c", code] if deaf else ["sleep", "60"], clock.Deadline(1.0)) is None
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


# --- half 1


def test_streams_draw_the_same_numbers_for_every_device():
    plain = torch.randn(4, generator=Runtime(torch.device("cpu")).generator(3, "a"))
    with same_numbers():
        own = Runtime(torch.device("cpu")).generator(3, "a")
        assert torch.equal(torch.randn(4, generator=own, device=own.device), plain)
        far = Runtime(torch.device("meta")).generator(3, "a")
        assert torch.rand(2, generator=far, device=far.device).device == far.device


def test_every_synthesizer_defense_and_teacher_is_a_row():
    names = [name for name, *_ in right.rows()]
    assert len(names) == len(set(names)) and {"synthesizer fast", "defense escape", "teacher hntl"} <= set(names)


def test_half_one_finds_a_device_that_computes_the_same_and_goes_on_where_it_was(make, monkeypatch):
    monkeypatch.setattr(speed, "run", lambda *_: None)
    measured, text = make("right", "--only", "synthesizer dfq")
    row = json.loads((measured / "right.json").read_text())["rows"]["synthesizer dfq"]
    assert row["right"] and row["difference"] <= right.TOLERANCE
    assert "| synthesizer dfq | yes |" in text and "| synthesizer fast | not measured |" in text
    monkeypatch.setattr(right, "compare", lambda *_: pytest.fail("it is there"))
    make("right", "--only", "synthesizer dfq")


def test_the_speed_is_a_table_of_the_page_and_ends_in_time(tmp_path):
    out = tmp_path / "bench.json"
    speed.run("cpu", clock.Deadline(60), out, toy=True)
    (row,) = json.loads(out.read_text())["rows"]
    assert row["correct"] and f"| {row['what']} |" in page.gpu_page(tmp_path)
    out.unlink()
    speed.run("cpu", clock.Deadline(0), out, toy=True)
    assert not out.exists()


@pytest.mark.parametrize(("compare", "said"), [(lambda *_: (0.5, 1.0), "**no**"), (lambda *_: 1 / 0, "**fails**")])
def test_half_one_says_what_differs_or_fails(make, monkeypatch, compare, said):
    monkeypatch.setattr(speed, "run", lambda *_: None)
    monkeypatch.setattr(right, "compare", compare)
    assert f"| defense atesc | {said} |" in make("right", "--only", "defense atesc")[1]


def test_half_one_stops_in_time_with_what_it_has(make, monkeypatch):
    monkeypatch.setattr(speed, "run", lambda *_: None)
    monkeypatch.setattr(
        right, "compare", lambda options, *_: time.sleep(5) if options[0] == "synthesizer=fast" else (0.0, 1.0)
    )
    measured, _ = make("right", "--only", "synthesizer", "--minutes", "0.01", "1")
    rows = json.loads((measured / "right.json").read_text())["rows"]
    assert "synthesizer dfq" in rows and "synthesizer fast" not in rows and "synthesizer zskt" not in rows


# --- half 2


def one_method(shared: list[str], share: float) -> list[field.Group]:
    return [field.Group({"noise_images": ["experiment=noise_images/cifar10_short"]}, shared), field.Group({}, shared)]


def test_half_two_leaves_a_record_and_a_row(make, monkeypatch):
    """Starts a process, as it does for every cell."""
    monkeypatch.setattr(field, "groups", one_method)
    measured, text = make("field")
    content = json.loads((measured / "noise_images.json").read_text())
    assert 0 <= content["measured"]["id"] <= 100 and content["measured"]["minutes"] >= 0
    assert content["not_comparable"] and content["card"] and "commit" in content
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
    whole, part = (record.steps(cell.config) for cell in cells)
    assert part / whole == pytest.approx(0.1, rel=near)


def test_the_share_is_what_fits_into_the_time():
    assert field.scale(440, 16) == 0.074 and field.scale(1e6, 16) == 1


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
    assert page.readme_table(tmp_path).startswith("Nothing of this was measured")
    (tmp_path / f"{record.file_name('cmi')}.json").write_text("{}")
    assert page.readme_table(tmp_path) == text
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
