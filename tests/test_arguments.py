"""Words of the command line: in any order, and with a clear message where Hydra cannot read one."""

import importlib
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from runner import command_line

from dfkd.config.arguments import hydra_order, quoted, unreadable_message


def read(word: str):
    return OverridesParser.create().parse_override(word)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("seed=1 -m --config-dir DIR defense=none", "-m --config-dir DIR seed=1 defense=none"),
        ("seed=1 --config-dir=DIR -cn x", "--config-dir=DIR -cn x seed=1"),
        ("seed=1 --cfg job --resolve", "--cfg job --resolve seed=1"),
        ("seed=1 --info seed=2 --info all", "--info --info all seed=1 seed=2"),
        ("seed=1 --config-dir", "seed=1 --config-dir"),
        ("~prior --unknown seed=1", "~prior --unknown seed=1"),
    ],
)
def test_options_may_stand_anywhere(given, wanted):
    assert hydra_order(given.split()) == wanted.split()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("data.root=~/x y", "~/x y"),
        ("data.root=~", "~"),
        ("+a=[~/x,b,~]", ["~/x", "b", "~"]),
        ("data.root='~/x'", "~/x"),
        ("data.root=/a/b", "/a/b"),
    ],
)
def test_a_path_in_the_home_folder_can_be_read(word, value):
    assert read(*hydra_order([word])).value() == value


def test_a_folder_of_options_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert hydra_order(["--config-dir=~/a", "-cp", "~/b"]) == ["--config-dir=/home/me/a", "-cp", "/home/me/b"]


@pytest.mark.parametrize(
    "value", ["/a=b", "/é", "/a(b)", "it's", 'a"b', "/a b/é\\", "#a", "=x", "/a;b&c", "\udcc3\udca9"]
)
def test_a_value_that_cannot_be_read_is_shown_as_it_should_be_typed(value):
    said = unreadable_message(f"data.root={value}", "said Hydra")
    (typed,) = shlex.split(said.partition("; type ")[2])
    assert repr(f"data.root={value}") in said and read(typed).value() == value


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "seed=1\r",
            "'seed=1\\r' cannot be read: it holds signs that do not belong there (of a file with Windows line",
        ),
        ("seed=1\r", "; type seed=1"),
        ("\ufeffseed=1", "signs that do not belong there; type seed=1"),
        ("data.root=“/a b”", "type 'data.root=\"/a b\"'"),
        ("seed", "'seed' cannot be read: an option is set by KEY=VALUE, and removed by ~KEY"),
        ("ünï=3", "'ünï' is no name of an option"),
        ("prior=[tv,bn", "its brackets do not match"),
        ("seed=choice(1,2", "its brackets do not match"),
        ("prior=[é,tv]", "type 'prior=[\"é\",tv]'"),
        ("a={b:é}", "cannot be read: said Hydra"),
    ],
)
def test_what_else_cannot_be_read(word, said):
    assert said in unreadable_message(word, "said Hydra\nand more")


def test_quotes_keep_what_they_hold():
    for value in ("a", "é\\", '\\"', "\\\\", "a\\b\"c'd"):
        assert read(f"x={quoted(value)}").value() == value


@pytest.mark.parametrize("sweep", [(), ("-m",)])
def test_the_command_names_the_argument(tmp_path, sweep):
    done = command_line("seed=1", *sweep, "data.root=/tmp/a=b", f"outputs={tmp_path / 'o'}")
    assert done.code == 1 and done.err.strip().splitlines()[-1] == (
        "dfkd: the argument 'data.root=/tmp/a=b' cannot be read: its value needs quotes of its own; "
        "type 'data.root=\"/tmp/a=b\"'"
    )
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("network=mlp", "'network'. Did you mean to override one of network@student.network, network@teacher.network?"),
        ("loss=l1", "'loss'. Did you mean to override loss@student.loss?"),
        ("+loss=l1", "loss: there is no such option"),
    ],
)
def test_an_option_of_a_group_inside_another_is_told_its_place(tmp_path, word, said):
    assert said in command_line(word, f"outputs={tmp_path / 'o'}").err


def test_several_values_outside_of_a_sweep_are_named(tmp_path):
    said = command_line("data.root=/tmp/a,b", f"outputs={tmp_path / 'o'}").err
    assert "data.root=/tmp/a,b is several values: as one text, type 'data.root=\"/tmp/a,b\"'; as a list" in said


def test_a_path_in_the_home_folder_of_the_other_commands(monkeypatch):
    from dfkd.report.cli import parser

    monkeypatch.setenv("HOME", "/home/me")
    chosen = parser().parse_args(["~/outputs", "--to=~/page"])
    assert list(map(str, (*chosen.places, chosen.to))) == ["/home/me/outputs", "/home/me/page"]


@pytest.mark.parametrize("command", ["inspect", "audit"])
def test_a_checkpoint_in_the_home_folder_of_the_commands_that_look_into_it(monkeypatch, tmp_path, command):
    cli = importlib.import_module(f"dfkd.cli.{command}").cli
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SystemExit, match=f"there is no checkpoint {tmp_path}/w.pt"):
        cli(["~/w.pt"])
