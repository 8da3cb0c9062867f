"""A cell's name and hash: the same for the same content, another for everything that can change a result."""

import copy
import re

import pytest
from omegaconf import DictConfig, OmegaConf, open_dict
from runner import composed

from dfkd.config.cell import Cell, apply_limit
from dfkd.errors import ConfigError
from dfkd.store.digest import file_digest
from dfkd.store.keys import content_key
from dfkd.store.run_folder import RunFolder

BASE = ("synthesizer=cake",)


def cell(*overrides: str) -> Cell:
    return Cell(composed(*BASE, *overrides))


@pytest.fixture(scope="module")
def plain() -> Cell:
    return cell()


def test_the_same_configuration_is_the_same_cell(plain):
    again = cell()
    assert (again.hash, again.name, again.folder) == (plain.hash, plain.name, plain.folder)


def test_a_name_is_readable_and_ends_with_the_hash(plain):
    assert plain.name == f"none-digits_supervised-cnn_bn_cake-cnn_bn_none_s0-{plain.hash}"
    assert len(plain.hash) == 8 and int(plain.hash, 16) >= 0
    assert plain.folder == plain.outputs / "runs" / plain.name


@pytest.mark.parametrize(
    "override",
    [
        "runtime.device=cpu",
        "runtime.threads=2",
        "runtime.chunk=50",
        "runtime.checkpoint_every=5",
        "tracker=wandb",
        "tracker=files",
        "outputs=elsewhere",
        "data.root=elsewhere",
        "data.download=true",
        "dry_run=true",
        "fail_fast=true",
        "teacher.epochs=20",  # what it is already
    ],
)
def test_what_cannot_change_a_result_does_not_change_the_hash(plain, override):
    other = cell(override)
    assert (other.hash, other.name) == (plain.hash, plain.name)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "seeds.student=1",
        "runtime.precision=float32",
        "teacher.network.widths=[16,32,65]",
        "network@student.network=cnn",
        "teacher.recipe.lr=0.2",
        "teacher=ntl",
        "student.epochs=11",
        "student.loss.labels=hard",
        "loss@student.loss=l1",
        "student.augment=shift",
        "+metrics.sure={label: sureness, compute: {_target_: my_metric.Sure}}",
        "synthesizer.contrast_weight=2",
        "prior.tv.weight=2",
        "~prior.tv",
        "noise.eps=0.2",
        "noise=decay_cosine",
        "ntl_scenario=backdoor",
        "domain@ntl_scenario.id=clusters",
        "+ntl_scenario.id.split_seed=1",
        "defense=atesc",
        "data.size=20",
        "data.limit=100",
        "evaluate.checks=5",
        "evaluate.premise.steps=9",
    ],
)
def test_what_can_change_a_result_changes_the_hash(plain, override):
    assert cell(override).hash != plain.hash


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("student=offline",), "9a5f262c31227aa0"),
        (("student=online",), "584837d91397aeef"),
        (("student=pool",), "d49d4adf6af78b67"),
        (("student=online_l1",), "4de59c39ac84ed42"),
        (("student=online", "loss@student.loss=kl_20"), "58291e02acafc84f"),
    ],
)
def test_the_keys_of_students_are_those_from_before_losses_were_options(overrides, key):
    student = cell(*overrides).content("student")["student"]
    del student["network"]
    assert content_key("student", 1, student) == key


def test_an_added_option_is_left_out_of_a_key_only_where_it_means_as_before():
    def student(*overrides: str) -> dict:
        return cell(*overrides).content("student")["student"]

    assert "augment" not in student("student=online_l1") and student("student=online")["augment"] == "none"
    assert student("student=online_l1", "student.augment=shift")["augment"] == "shift"


@pytest.mark.parametrize("student", ["offline", "online", "online_fresh", "online_l1", "pool"])
@pytest.mark.parametrize("loss", ["kl", "l1", "hint"])
def test_every_student_takes_every_loss(student, loss):
    chosen = composed("synthesizer=dfq", f"student={student}", f"loss@student.loss={loss}", "student.augment=none")
    alone = composed("student=offline", f"loss@student.loss={loss}")
    assert chosen.student.loss == alone.student.loss and chosen.student.name == student


def test_what_a_metric_is_called_does_not_change_the_hash():
    def own(options: str) -> str:
        return cell(f"+metrics.sure={{compute: {{_target_: my_metric.Sure, bins: 3}}, {options}}}").hash

    plain = own("label: sureness")
    assert own("label: certainty, form: percent, lower_is_better: true") == plain
    assert own("label: sureness, each_round: false") != plain


def test_a_debug_run_is_not_mistaken_for_the_real_one(plain):
    small = cell("debug=smoke")
    assert small.hash != plain.hash
    assert small.config["synthesizer"]["rounds"] == 2 and small.config["student"]["epochs"] == 1


def test_a_limit_that_lowers_nothing_changes_nothing(plain):
    assert cell("+limit.rounds=100000").hash == plain.hash


def test_lowering_reaches_every_number_of_that_name_and_nothing_else():
    node = {"epochs": 9, "a": {"epochs": 2, "flag": {"epochs": True}}, "b": [{"epochs": 5.0}], "c": {"epochs": None}}
    apply_limit(node, {"epochs": 3})
    assert node == {
        "epochs": 3,
        "a": {"epochs": 2, "flag": {"epochs": True}},
        "b": [{"epochs": 3}],
        "c": {"epochs": None},
    }


def test_a_missing_value_is_named_with_how_to_set_it():
    with pytest.raises(ConfigError, match=r"teacher\.path is missing: set teacher\.path=\.\.\."):
        cell("teacher=checkpoint")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dry_run=yes", "dry_run must be true or false, got 'yes'"),
        ("~fail_fast", "fail_fast must be true or false, got None"),
        ("~runtime.precision", "runtime.precision is missing: set runtime.precision=..."),
        ("+limit.rounds=few", "limit.rounds must be a number, got 'few'"),
        ("student.network=null", "student.network must be one of its options, got None"),
        ("ntl_scenario.id=3", "ntl_scenario.id must be one of its options, got 3"),
        ("~teacher.name", "teacher.name is missing"),
        ("evaluate.premise=null", "evaluate.premise is a section of options, got None"),
    ],
)
def test_what_every_cell_needs_is_missed_by_name(override, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        cell(override)


NAMES = ("ntl_scenario", "ntl_scenario.id", "teacher", "teacher.network", "synthesizer", "student.network", "defense")


@pytest.fixture(scope="module")
def composition() -> DictConfig:
    return composed("ntl_scenario=close_set")


def named(composition: DictConfig, key: str, name: object) -> Cell:
    cfg = copy.deepcopy(composition)
    OmegaConf.update(cfg, key, name, force_add=True)
    return Cell(cfg)


@pytest.mark.parametrize("option", [*NAMES, "ntl_scenario.ood"])
@pytest.mark.parametrize("name", ["my/defense", "../../x", "/x", "a\0b", "a\nb", "a\x1b[2Jb", "..", ".hidden", "", "  ",
                                  "\u202ex", "\ud800", 3, 0, 1.5, True, [1], ["a"], {"a": 1}, None])  # fmt: skip
def test_a_name_that_is_no_part_of_a_path_is_refused_with_what_to_write(composition, option, name):
    with pytest.raises(ConfigError, match=re.escape(f"{option}.name")) as error:
        named(composition, f"{option}.name", name)
    assert f"set {option}.name=" in str(error.value) and "\0" not in str(error.value)


def test_a_refused_name_is_shown_as_it_could_be_written(composition):
    with pytest.raises(ConfigError, match=r"set defense\.name=my_own_defense$"):
        named(composition, "defense.name", "../my/own defense")


@pytest.mark.parametrize("name", ["x.y", "x-y_z", "a b", "größe", "実験", "~x", "-x", "a" * 100])
def test_a_name_that_can_be_a_part_of_a_path_stays_as_it_is(composition, name):
    cell = named(composition, "defense.name", name)
    assert f"_{name}_s0-" in cell.folder.name and cell.folder.parent == cell.outputs / "runs"


@pytest.mark.parametrize("letter", ["a", "é", "\U0001f600"])
def test_a_folder_may_be_called_by_as_many_bytes_as_a_file_system_takes(composition, letter):
    used = len(named(composition, "defense.name", "x").name.encode()) - 1
    fits = letter * ((255 - used) // len(letter.encode()))
    assert len(named(composition, "defense.name", fits).name.encode()) > 250
    with pytest.raises(ConfigError, match=r"would have 25[6-9] bytes(.|\n)*longest part of it is defense\.name"):
        named(composition, "defense.name", fits + letter)


@pytest.mark.parametrize("name", ["my/stage", "..", "a\nb", "s" * 250])
def test_a_stage_is_a_folder_too(composition, name):
    cfg = copy.deepcopy(composition)
    with open_dict(cfg):
        cfg.stages[name] = {"_target_": "my.Stage"}
    with pytest.raises(ConfigError, match="stage"):
        Cell(cfg)


@pytest.mark.parametrize(
    ("key", "values"), [("outputs", [None, 3, "", ["a"], "a\0b"]), ("seed", ["a/b", 1.5, True, [1]])]
)
def test_what_else_is_in_the_path_of_a_run_folder(composition, key, values):
    for value in values:
        with pytest.raises(ConfigError, match=rf"^{key} must be "):
            named(composition, key, value)


def test_a_value_that_refers_to_nothing_is_named():
    with pytest.raises(ConfigError, match="no_such_key"):
        cell("teacher.epochs=${no_such_key}")


def finish(one: Cell, **changes: object) -> dict:
    """Leave a run folder as a finished run does."""
    one.folder.mkdir(parents=True)
    (one.folder / "student.safetensors").write_bytes(b"weights")
    result = {
        "hash": one.hash,
        "config": one.config,
        "teacher": {"iacc": 90.0},
        "student": {"iacc": 80.0},
        "stages": {},
    }
    result["student_digest"] = file_digest(one.folder / "student.safetensors")
    return RunFolder(one.folder).write_result(result | changes)


def test_a_finished_cell_is_known_by_its_result(tmp_path):
    one = cell(f"outputs={tmp_path}")
    assert one.finished_result() is None
    assert finish(one) == one.finished_result()


@pytest.mark.parametrize("damage", ["result", "student", "no student", "other hash"])
def test_a_damaged_result_does_not_count_as_finished(tmp_path, damage):
    one = cell(f"outputs={tmp_path}")
    finish(one, **({"hash": "00000000"} if damage == "other hash" else {}))
    if damage == "result":
        (one.folder / "result.json").write_text('{"hash": ')
    elif damage == "student":
        (one.folder / "student.safetensors").write_bytes(b"weighty")
    elif damage == "no student":
        (one.folder / "student.safetensors").unlink()
    assert one.finished_result() is None


def test_the_attacks_radius_is_set_once_for_all_that_split_and_changes_nothing_else(plain):
    radius = "attack.eps=3/255"
    assert cell(radius).hash == plain.hash
    split = {name: cell(f"defense={name}", radius) for name in ("atesc", "atesc_random")}
    assert split["atesc"].config["defense"]["criterion"]["eps"] == "3/255"
    assert split["atesc_random"].config["defense"]["criterion"]["of"]["eps"] == "3/255"
    assert all(one.hash != cell(f"defense={name}").hash for name, one in split.items())


@pytest.mark.parametrize(
    "key",
    [
        *("prior", "student", "network@teacher.network", "teacher._target_", "teacher.name"),
        *("stages", "stages.judgement", "runtime", "data.root", "seeds.student", "until", "outputs"),
    ],
)
def test_what_is_taken_away_is_named(key):
    name = key.rpartition("@")[2]
    with pytest.raises(ConfigError, match=re.escape(name.removesuffix("._target_"))):
        Cell(composed(f"~{key}"))


def test_a_path_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = (
        'outputs="~/o"',
        'data.root="~"',
        "teacher=checkpoint",
        'teacher.path="~/a b.pt"',
        "teacher.mean=[0]",
        "teacher.std=[1]",
    )
    config = Cell(composed(*words, 'evaluate.premise.eps=["~/c",1]')).config
    found = config["outputs"], config["data"]["root"], config["teacher"]["path"], config["evaluate"]["premise"]["eps"]
    assert found == (f"{tmp_path}/o", str(tmp_path), f"{tmp_path}/a b.pt", [f"{tmp_path}/c", 1])


def test_outputs_is_the_name_of_a_folder():
    with pytest.raises(ConfigError, match="outputs must be the name of a folder, got None"):
        Cell(composed("outputs=null"))
