"""Option files of a user's own that Hydra passes over in silence."""

import pytest
from runner import command_line, make_cell

from dfkd.config.own_options import GLOBAL, check_headers
from dfkd.errors import ConfigError

OPTIONS = "seed: 7\n"


def write(folder, name: str, text: str, mark: bytes = b"") -> None:
    file = folder / "mine" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(mark + text.encode())


def said(folder, *words: str, sweep: bool = False) -> str:
    done = command_line(*(["-m"] if sweep else []), "--config-dir", str(folder / "mine"), *words, "dry_run=true",
                        f"outputs={folder / 'o'}")  # fmt: skip
    assert done.code == 1 and not (folder / "o" / "runs").exists()
    return done.err.strip().splitlines()[-1]


@pytest.mark.parametrize("sweep", [False, True])
def test_an_experiment_without_its_header_is_refused(tmp_path, sweep):
    write(tmp_path, "experiment/x", "# mine\n# @package _global_\n" + OPTIONS)
    error = said(tmp_path, "experiment=x", sweep=sweep)
    file = tmp_path / "mine" / "experiment" / "x.yaml"
    assert error.endswith(
        f"experiment.seed is set where nothing reads it: {file} must have '# @package _global_' as its first line"
    )


@pytest.mark.parametrize("group", GLOBAL)
def test_so_is_everything_that_sets_what_lies_elsewhere(group):
    check_headers({group: None})
    with pytest.raises(ConfigError, match=f"{group}.seed is set where nothing reads it: a file of the group {group}"):
        check_headers({group: {"seed": 7}})


def test_a_header_behind_a_byte_order_mark_is_refused(tmp_path):
    write(tmp_path, "experiment/x", "# @package _global_\n" + OPTIONS, mark=b"\xef\xbb\xbf")
    assert said(tmp_path, "experiment=x").endswith(
        "it begins with a UTF-8 byte-order mark, which hides that line: save it without the mark"
    )


@pytest.mark.parametrize("sweep", [False, True])
def test_an_option_of_the_name_of_a_shipped_one_is_refused(tmp_path, sweep):
    write(tmp_path, "defense/ckd", "name: ckd\n")
    error = said(tmp_path, "defense=ckd", sweep=sweep)
    mine = tmp_path / "mine" / "defense" / "ckd.yaml"
    assert f"{mine} is never read, since " in error and "conf/defense/ckd.yaml has its name" in error


def test_a_copy_of_a_shipped_option_and_ones_own_are_taken(tmp_path):
    from dfkd.main import CONF

    write(tmp_path, "defense/ckd", (CONF / "defense" / "ckd.yaml").read_text())
    write(tmp_path, "experiment/x", "# @package _global_\n" + OPTIONS)
    done = command_line(
        "experiment=x", "--config-dir", str(tmp_path / "mine"), "dry_run=true", f"outputs={tmp_path / 'o'}"
    )
    assert done.code == 0 and "_s7-" in done.out


def test_an_option_that_nothing_reads_is_refused_with_the_nearest_name(tmp_path):
    write(tmp_path, "experiment/x", "# @package _global_\nsede: 7\ndata: {sise: 8}\nevaluate: {premise: {step: 3}}\n")
    done = command_line(
        "experiment=x", "--config-dir", str(tmp_path / "mine"), "+seeds.studnet=7", "+attack.ep=1/255",
        f"outputs={tmp_path / 'o'}",
    )  # fmt: skip
    assert done.code == 1 and not (tmp_path / "o" / "runs").exists()
    for option, near in {
        **{"sede": "seed", "data.sise": "size", "evaluate.premise.step": "steps"},
        **{"seeds.studnet": "student", "attack.ep": "eps"},
    }.items():
        assert f"{option}: there is no such option; did you mean '{near}'?" in done.err


def test_a_value_that_others_refer_to_is_no_mistake(tmp_path):
    cell = make_cell(tmp_path, "+mine.radius=3/255", "attack.eps=${mine.radius}", "+data.side=8", "data.size=${.side}")
    assert (cell.config["attack"]["eps"], cell.config["data"]["size"]) == ("3/255", 8)
    with pytest.raises(ConfigError, match=r"^mine: there is no such option"):
        make_cell(tmp_path, "+mine.radius=3/255")
