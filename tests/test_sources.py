"""Keys stand for the bytes of files and of own code: what depends on them gets another key, and nothing else does."""

import bz2
import hashlib
import importlib
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runner import NOISE, composed, make_cell

from dfkd.config import published_sets
from dfkd.config.cell import RESULT_VERSION, Cell
from dfkd.config.sources import Sources
from dfkd.run.run_cell import run_cell
from dfkd.stages.prepare import prepare
from dfkd.stages.stage import planned_stages
from dfkd.store.digest import CACHE_FILE, Digests
from dfkd.store.keys import content_key
from dfkd.store.run_folder import RunFolder


@pytest.fixture
def sources(tmp_path):
    """What a new cell sees."""
    return lambda root="data": Sources(Digests(tmp_path / "outputs" / CACHE_FILE), root)


@pytest.mark.parametrize(
    "overrides",
    [
        ("domain@ntl_scenario.id=npz", "ntl_scenario.id.path={}"),
        ("ntl_scenario=close_set", "domain@ntl_scenario.ood=npz", "ntl_scenario.ood.path={}"),
        ("domain@ntl_scenario.id=image_folder", "ntl_scenario.id.path={}", "data.size=8"),
        ("domain@ntl_scenario.id=mnistm", "data.root={}"),
        ("teacher=checkpoint", "teacher.path={}", "teacher.mean=[0]", "teacher.std=[1]"),
        ("ntl_scenario=backdoor", "trigger@ntl_scenario.trigger=image", "ntl_scenario.trigger.path={}"),
        (
            *("ntl_scenario=backdoor", "trigger@ntl_scenario.trigger=image", "ntl_scenario.trigger.path=none.png"),
            "ntl_scenario.trigger.mask.path={}",
        ),
        ("prior=mean_image", "prior.mean_image.path={}"),
        ("synthesizer=nayer", "synthesizer.embeddings=file", "synthesizer.path={}"),
        ("+synthesizer.embeddings_path={}",),
        ("+synthesizer.banks_paths=[{},none.pt]",),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_every_file_that_an_option_names_counts_by_its_bytes(tmp_path, overrides):
    folder = "{}" in overrides[-1] and "root" in overrides[-1]
    path = tmp_path / "data"
    file = path / "mnistm.npz" if folder else path
    if "domain@ntl_scenario.id=image_folder" in overrides:
        file = path / "train" / "cat" / "1.png"
    file.parent.mkdir(parents=True, exist_ok=True)

    def key(text: str) -> str:
        file.write_text(text)
        words = [word.format(path) for word in overrides]
        return Cell(composed(*words, f"outputs={tmp_path / 'outputs'}")).hash

    assert key("one") == key("one") != key("two")


def test_where_a_file_lies_does_not_count(tmp_path, sources):
    for name in "ab":
        (tmp_path / name).write_text("same")
    assert sources()({"path": str(tmp_path / "a")}) == sources()({"path": str(tmp_path / "b")})


def test_a_cell_sees_a_file_once(tmp_path, sources):
    """So that its hash and the keys of its stages are of the same bytes."""
    (tmp_path / "a").write_text("one")
    one, node = sources(), {"path": str(tmp_path / "a")}
    before = one(node)
    (tmp_path / "a").write_text("two")
    assert one(node) == before != sources()(node)


def test_components_of_ours_and_options_without_a_file_add_nothing(sources):
    assert sources()({"_target_": "dfkd.synthesizers.CAKE", "path": None, "rounds": 3}) == {}


def test_keys_of_built_in_data_and_shipped_components_are_those_of_the_plain_configuration():
    for words in ((), ("ntl_scenario=backdoor", "teacher=backdoor", "synthesizer=cake", "defense=atesc")):
        cell = Cell(composed(*words))
        assert cell.hash == content_key("result", RESULT_VERSION, cell.content())[:8]


OWN = {  # what is replaced by a subclass of one's own: where it stands, its class, the first stage that depends on it
    "ntl_scenario": ("dfkd.scenarios.none", "teacher"),
    "ntl_scenario.id": ("dfkd.domains.digits", "teacher"),
    "teacher": ("dfkd.teachers.Supervised", "teacher"),
    "teacher.network": ("dfkd.models.cnn_bn", "teacher"),
    "synthesizer": ("dfkd.synthesizers.NoiseImages", "pool"),
    "prior.tv_diagonal": ("dfkd.priors.DiagonalTotalVariation", "pool"),
    "noise": ("dfkd.noise.Noise", "pool"),
    "defense.criterion": ("dfkd.defenses.Confidence", "split"),
    "defense": ("dfkd.defenses.ATEsc", "split"),
    "student": ("dfkd.distill.Student", "student"),
    "student.network": ("dfkd.models.cnn_bn", "student"),
    "stages.split": ("dfkd.stages.SplitStage", "split"),
}
ORDER = ("teacher", "judgement", "pool", "split", "student")


@pytest.mark.parametrize("where", OWN)
def test_an_edit_of_own_code_changes_what_depends_on_it_and_only_that(tmp_path, monkeypatch, where):
    target, first = OWN[where]
    home, _, name = target.rpartition(".")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = [
        "synthesizer=noise_images",
        "prior=deepinversion",
        "defense=atesc_confidence",
        f"{where}._target_=own.Mine",
    ]

    def cell_and_keys(code: str) -> tuple[str, dict[str, str]]:
        monkeypatch.delitem(sys.modules, "own", raising=False)
        (tmp_path / "own.py").write_text(f"from {home} import {name} as Mine\n{code}")
        importlib.invalidate_caches()
        cell = make_cell(tmp_path / "outputs", *words)
        return cell.hash, {name: planned.key for name, planned in planned_stages(cell, prepare(cell)).items()}

    (hash_before, before), (hash_after, after) = cell_and_keys("a = 1\n"), cell_and_keys("a = 2\n")
    assert hash_before != hash_after and set(ORDER) <= set(before)
    assert [name for name in ORDER if before[name] != after[name]] == list(ORDER[ORDER.index(first) :])


def published(tmp_path: Path, monkeypatch) -> dict:
    """A small set in USPS's place, published with these bytes; returns its node."""
    monkeypatch.setitem(published_sets.FILES, "USPS", {"usps.bz2": hashlib.md5(bz2.compress(b"1 1:0.5")).hexdigest()})
    return {"_target_": "dfkd.domains.vision", "dataset": "USPS"}


def test_a_published_set_is_known_by_its_name_wherever_it_lies_and_before_it_is_fetched(tmp_path, monkeypatch, sources):
    node = published(tmp_path, monkeypatch)
    assert sources(str(tmp_path / "none"))(node) == {}
    (tmp_path / "usps.bz2").write_bytes(bz2.compress(b"1 1:0.5"))
    assert sources(str(tmp_path))(node) == {}


def test_other_bytes_in_its_place_are_another_set(tmp_path, monkeypatch, sources):
    node, seen = published(tmp_path, monkeypatch), []
    for text in (b"1 1:0.6", b"1 1:0.7"):
        (tmp_path / "usps.bz2").write_bytes(bz2.compress(text))
        seen.append(sources(str(tmp_path))(node)["files"])
        assert sources("elsewhere")(node | {"root": str(tmp_path)}) == {"files": seen[-1]}
    assert seen[0] != seen[1]


def test_a_file_that_would_be_read_but_is_not_published_counts(tmp_path, sources):
    node = {"_target_": "dfkd.domains.vision", "dataset": "MNIST"}
    (tmp_path / "MNIST" / "processed").mkdir(parents=True)
    assert sources(str(tmp_path))(node) == {}
    (tmp_path / "MNIST" / "processed" / "training.pt").write_bytes(b"old")
    assert "files" in sources(str(tmp_path))(node)


def test_every_set_of_ours_has_its_files():
    texts = [file.read_text() for file in (Path(__file__).parents[1] / "conf" / "domain").glob("*.yaml")]
    shipped = {line.split()[1] for text in texts for line in text.splitlines() if line.startswith("dataset:")}
    assert shipped == set(published_sets.FILES)


def pictures(folder: Path, values: tuple[int, int]) -> None:
    """Two classes of plain 8x8 pictures; those of other values have the same size."""
    for part in ("train", "test"):
        for name, value in zip(("dark", "light"), values, strict=True):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(4):
                Image.new("L", (8, 8), value).save(folder / part / name / f"{number}.bmp")


def test_a_cell_of_a_folder_of_images_is_finished_only_for_these_images(tmp_path):
    """The same command with other images of the same names and sizes, and with its classes swapped."""
    words = ("domain@ntl_scenario.id=image_folder", f"ntl_scenario.id.path={tmp_path / 'images'}", "data.size=8")
    hashes = []
    for values in ((0, 200), (90, 110), (200, 0)):
        pictures(tmp_path / "images", values)
        cell = make_cell(tmp_path / "outputs", *words)
        assert cell.finished_result() is None
        cell.folder.mkdir(parents=True, exist_ok=True)
        result = {"hash": cell.hash, "config": {}, "teacher": {}, "stages": {"student": {}}}
        RunFolder(cell.folder).write_result(result)
        assert make_cell(tmp_path / "outputs", *words).finished_result() is not None
        hashes.append(cell.hash)
    pictures(tmp_path / "images", (0, 200))
    assert make_cell(tmp_path / "outputs", *words).hash == hashes[0] and len(set(hashes)) == 3


def test_an_edited_method_is_run_anew_with_the_teacher_it_had(tmp_path, monkeypatch, caplog):
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "from dfkd.synthesizers import NoiseImages as Mine\nNUMBER = 1\n"

    def computed(text: str) -> list[str]:
        """Which stages were made anew."""
        monkeypatch.delitem(sys.modules, "my_own_method", raising=False)
        (tmp_path / "my_own_method.py").write_text(text)
        importlib.invalidate_caches()
        caplog.clear()
        with caplog.at_level(logging.INFO, "dfkd"):
            cell = make_cell(tmp_path / "outputs", *NOISE, "synthesizer._target_=my_own_method.Mine")
        stages = {} if cell.finished_result() else run_cell(cell)["stages"]
        return [name for name, stage in stages.items() if not stage["reused"]]

    assert computed(text) == ["teacher", "judgement", "pool", "split", "student"]
    assert computed(text) == []
    assert computed(text.replace("1", "2")) == ["pool", "split", "student"]
    assert [line for line in caplog.messages if "my_own_method.py has changed since it was last used" in line]
    assert computed(text) == []


def test_another_cell_of_the_same_process_sees_a_file_as_it_is_now(tmp_path):
    words = ("domain@ntl_scenario.id=npz", f"ntl_scenario.id.path={tmp_path / 'mine.npz'}")
    means = []
    for value in (50, 200):
        x, y = np.full((60, 8, 8), value, np.uint8), np.arange(60) % 3
        x[:, 0, 0] = 0
        np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        means.append(prepare(make_cell(tmp_path / "o", *words)).scenario.id.train.x.float().mean().item())
    assert means[0] < 60 < 190 < means[1]
