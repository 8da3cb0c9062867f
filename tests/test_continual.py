"""scripts/continual.py: what a chain comes to, and that its cells are joined by the store."""

import json
import re
import sys

import pytest
from runner import DFQ, NOISE, ROOT, TINY

sys.path.append(str(ROOT / "scripts"))
import continual

from dfkd.errors import NonFiniteLoss


def test_forgetting_is_that_of_chaudhry_et_al():
    rows = [[90.0], [95.0, 80.0], [60.0, 85.0, 99.0]]
    assert continual.summary(rows) == {
        "average": pytest.approx(244 / 3),
        "forgetting": [35.0, -5.0],
        "mean_forgetting": 15.0,
    }


@pytest.mark.parametrize(
    ("method", "small", "memory"),
    [("noise_images", NOISE[1:], "pool.safetensors"), ("dfq", DFQ, "samples.safetensors")],
)
def test_the_next_learner_gets_the_files_of_the_last_one(tmp_path, monkeypatch, method, small, memory):
    monkeypatch.setattr(continual, "TASKS", 2)
    options = [*(word for word in TINY if "premise" not in word), *small, "teacher.epochs=1"]
    rows = continual.chain(method, "digits", 0, tmp_path, options)
    assert [len(row) for row in rows] == [1, 2] and all(0 <= value <= 100 for row in rows for value in row)
    monkeypatch.setattr("dfkd.run.run_cell.run_cell", None)  # all of it is there: nothing is run again
    seen, make = [], continual.cell_of

    def watched(*given):
        seen.append(make(*given))
        return seen[-1]

    monkeypatch.setattr(continual, "cell_of", watched)
    assert continual.chain(method, "digits", 0, tmp_path, options) == rows
    assert [cell.config["until"] for cell in seen] == ["pool" if "pool" in memory else "student", "judgement"]
    assert seen[1].config["teacher"]["memory_path"].endswith(memory)
    assert seen[1].config["teacher"]["last_path"].endswith("teacher.safetensors")


def test_a_chain_that_diverges_is_told_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def chain(method, of, seed, *_):
        if seed == 1:
            raise NonFiniteLoss("contrast", 10)
        return [[float(k) for k in range(task + 1)] for task in range(continual.TASKS)]

    monkeypatch.setattr(continual, "chain", chain)
    with pytest.raises(SystemExit, match="cake: the chain of seed 1 has no end: loss term 'contrast'"):
        continual.main(["--methods", "cake,nothing", "--seeds", "0,1,2", "--out", str(tmp_path)])
    assert capsys.readouterr().out.count("n = 2") == 2
    found = json.loads((tmp_path / "continual.json").read_text())
    assert [len(chains) for chains in found.values()] == [2, 2]


def test_cakes_rows_have_no_more_classes_than_there_are_and_fill_a_batch_of_500(tmp_path):
    cells = [continual.cell_of("cake", "digits", task, 0, tmp_path, []) for task in range(5)]
    assert [cell.config["synthesizer"]["groups"] for cell in cells] == [2, 4, 5, 5, 10]


def test_the_bounds_have_no_memory(tmp_path):
    for method in continual.BOUNDS:
        config = continual.cell_of(method, "digits", 2, 1, tmp_path, []).config
        assert config["until"] == "judgement" and config["seed"] == 1
        assert config["ntl_scenario"]["id"]["joint"] == (method == "joint")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "dqf"], "did you mean 'dfq/digits'?"),
        (["--methods", "nothing", "teacher.epoch=1"], "there is no 'teacher.epoch'; did you mean 'epochs'?"),
    ],
)
def test_a_wrong_word_is_told_with_what_to_write_instead(tmp_path, words, said):
    with pytest.raises(SystemExit, match=re.escape(said)):
        continual.main([*words, "--out", str(tmp_path)])
    assert not any(tmp_path.iterdir())


def test_a_share_of_the_rounds_is_that_of_every_preset_and_warm_up(tmp_path):
    def made(method: str, rounds: str) -> dict:
        return continual.cell_of(method, "digits", 1, 0, tmp_path, [], continual.share(rounds)).config["synthesizer"]

    assert made("dfq", "1/3")["rounds"] == 390 and made("cake", "1/3")["rounds"] == 6
    assert (made("nayer", "1/3")["rounds"], made("nayer", "1/3")["warm_up"]) == (20, 7)
    assert made("nothing", "1/3") == made("nothing", "1")  # which makes no images
    none = continual.cell_of("nayer", "digits", 1, 0, tmp_path, ["synthesizer.warm_up=0"], 1).config["synthesizer"]
    assert none["warm_up"] == 0


@pytest.mark.parametrize("text", ["0", "4/3", "1/0", "third"])
def test_what_is_no_share_is_refused(tmp_path, text, capsys):
    with pytest.raises(SystemExit):
        continual.main(["--rounds", text, "--out", str(tmp_path)])
    assert f"'{text}' is no share above 0 and at most 1, such as 1/3" in capsys.readouterr().err
