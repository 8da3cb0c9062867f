"""The study: which teachers the verdict is fitted on, what is fitted, and its tables."""

import itertools
import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from runner import ROOT

from dfkd.audit import Looks

sys.path.insert(0, str(ROOT / "scripts" / "audit"))
import parts
import students
import study
import zoo
from diagram import diagram
from tables import SCORES, of_neighbours, tables

from dfkd.audit.verdict import judge


def audited(member: zoo.Member, strength: float, asr: float) -> parts.Audited:
    """A teacher whose target stands out by `strength` in every look that counts."""
    quiet = [0.1 * ((7 * place + member.seed) % 5) for place in range(10)]
    values = {name: list(quiet) for name in study.SIGNALS}
    for name, usual in (("masks", 20), ("marks", 20), ("shifts", 5), ("margins", 10), ("last_layer", 5)):
        values[name] = [usual + value for value in quiet]
    values["scouts"][member.target] += strength
    for name in ("masks", "marks", "shifts"):
        values[name][member.target] /= 1 + strength
    for name in ("margins", "last_layer"):
        values[name][member.target] *= 1 + strength
    looks = Looks(values, hit=1.0, confidence=0.5, radii=[8 / 255] * 10, labels=list(range(10)))
    judgement, others = {"asr": asr, "olacc": None, "oacc": 50.0, "iacc": 99.0}, {"trodo": asr / 100, "batch_norm": 2.0}
    return parts.Audited(member, judgement, looks, 9.0, Path(), baselines=others)


@pytest.fixture(scope="module")
def teachers():
    """Backdoored teachers of the zoo and their twins; every tenth trapped one obeys its trap by half."""
    made = []
    backdoors = [member for member in zoo.members() if member.kind == "backdoor"]
    for member in [*backdoors[:40], *backdoors[-60:]]:
        obeyed = 50.0 if member.seed % 10 == 0 else 99.0
        made.append(audited(member, 1.5, obeyed) if member.trapped else audited(member, 0.0, 1.0))
    return made


def test_pairs_stay_together_and_both_parts_have_clean_and_trapped_teachers(teachers):
    parts = {seed: set() for seed in {t.member.seed for t in teachers}}
    for teacher in teachers:
        parts[teacher.member.seed].add(teacher.to_choose)
    assert all(len(part) == 1 for part in parts.values())
    for part in (True, False):
        assert {t.member.trapped for t in teachers if t.to_choose is part} == {True, False}


def test_the_part_to_test_on_has_a_network_and_images_of_its_own():
    to_test, to_choose = ([m for m in zoo.members() if (m.seed >= zoo.FIRST_TESTED) is part] for part in (True, False))
    assert {m.network for m in to_test} - {m.network for m in to_choose} == {"wrn"}
    assert {m.domain for m in to_test} - {m.domain for m in to_choose} == {"mnistm"}


def test_a_teacher_that_is_only_unsure_of_a_close_set_is_no_trap():
    member = next(m for m in zoo.members() if m.kind == "close_set" and m.trapped)
    judgement = {"asr": None, "olacc": None, "oacc": 10.0, "iacc": 99.0}
    firm, unsure = (parts.Audited(member, judgement, None, 9.0, Path(), outside={"sure": sure}) for sure in (99.0, 3.0))
    assert firm.obeyed and not unsure.obeyed
    assert not replace(firm, judgement=judgement | {"oacc": 60.0}).obeyed


def test_a_trap_that_is_not_obeyed_is_neither_trapped_nor_clean(teachers):
    kept = parts.chosen(teachers)
    assert len(kept) < len(teachers)
    assert all(t.judgement["asr"] >= parts.OBEYED for t in kept if t.member.trapped)
    assert sum(not t.member.trapped for t in kept) == sum(not t.member.trapped for t in teachers)


def test_the_fit_separates_what_can_be_separated(teachers):
    kept = parts.chosen(teachers)
    model = study.fit(kept)
    assert set(model["usual"]) == set(study.SIGNALS) and model["least_confidence"] == 0.5
    assert {name for name, weight in model["weight"].items() if weight > 0} <= set(study.COUNTED)
    for teacher in kept:
        _, total = study.suspicion(teacher.looks, model)
        assert (judge(teacher.looks, model).probability > 0.5) == teacher.member.trapped, total


def test_a_fit_needs_both_kinds(teachers):
    with pytest.raises(SystemExit, match="clean and trapped"):
        study.fit([t for t in teachers if t.member.trapped])


def test_the_fit_is_a_logistic_regression_without_negative_weights():
    apart = torch.tensor([[0.0, 5], [1, 4], [2, 6], [3, 5], [10, 5], [11, 6], [12, 4], [13, 5]], dtype=torch.float64)
    labels = [False] * 4 + [True] * 4
    weights, bias = study.logistic(apart, labels)
    assert weights[0] > 0.2 and 3 < -(bias + 5 * weights[1]) / weights[0] < 10
    against, _ = study.logistic(-apart, labels)
    assert (against < 1e-3).all()
    overlapping, _ = study.logistic(apart[[0, 1, 2, 5, 3, 4, 6, 7]], labels)
    assert 0 < overlapping[0] < weights[0]


def test_a_fitted_weight_is_where_the_gradient_of_the_loss_vanishes():
    signals = torch.tensor([[0.0], [1], [3], [2], [4], [5]], dtype=torch.float64)
    weights, bias = study.logistic(signals, [False, False, False, True, True, True])
    wanted = torch.tensor([1 / 5] * 3 + [4 / 5] * 3, dtype=torch.float64)  # Platt: (3 + 1) / (3 + 2)
    error = (torch.sigmoid(signals[:, 0] * weights[0] + bias) - wanted) / 6
    assert error.sum().item() == pytest.approx(0, abs=1e-4)
    slope = (error * signals[:, 0]).sum() + 2 * study.DECAY * weights[0]
    assert slope.item() == pytest.approx(0, abs=1e-4)


def test_the_calibration_diagram_shows_every_bin(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: drawn.append((figure, file)))
    text = diagram([(0.1, 0.0, 9), (0.9, 1.0, 4)], tmp_path / "audit" / "calibration.png")
    ((figure, file),) = drawn
    assert text.endswith("(audit/calibration.png)") and file == tmp_path / "audit" / "calibration.png"
    line = figure.axes[0].lines[1]
    assert line.get_xdata().tolist() == [0.1, 0.9] and line.get_ydata().tolist() == [0.0, 1.0]
    assert [words.get_text() for words in figure.axes[0].texts] == ["n = 9", "n = 4"]


def test_the_tables_name_every_score_and_group(teachers):
    text = tables(teachers)
    for name in (*SCORES, "trap: sig", "network: mlp", "images: usps", "Calibration error"):
        assert name in text
    kept = parts.chosen(teachers)
    trapped, clean = (sum(t.member.trapped is is_in for t in kept) for is_in in (True, False))
    assert f"| all | {trapped} / {clean} | 1.000 (1.00 to 1.00) | 100 | 100 |" in text


def test_students_are_told_by_what_the_audit_says_of_their_teachers(teachers):
    shown = [t for t in parts.chosen(teachers) if students.in_question(t.member)]
    wrong = {t.member.name: 99.0 if t.member.trapped else 1.0 for t in shown}
    text = students.table(shown, wrong)
    trapped = sum(t.member.trapped for t in shown)
    assert f"| trapped | {trapped} | 99.0 (99.0 to 99.0) | {trapped} |" in text and "AUROC of 1.000" in text
    assert students.table(shown, {}) == ""


def test_what_a_student_inherits_is_read_from_its_result(tmp_path):
    for seed, teacher, found in ((3, "backdoor", {"asr": 80.0, "olacc": None}), (3, "clean_twin", None)):
        result = {"seed": seed, "config": {"teacher": {"name": teacher}}, "student": found}
        (tmp_path / "runs" / teacher).mkdir(parents=True)
        (tmp_path / "runs" / teacher / "result.json").write_text(json.dumps(result))
    assert students.inherited(tmp_path) == {"3 trapped": 80.0}


def test_the_same_look_at_the_part_to_test_on_is_counted_once(tmp_path):
    file, look = tmp_path / "looked.jsonl", {"teachers": 10, "model": {"bias": -1.5}}
    assert [study.count_look(file, look) for _ in range(2)] == [1, 1]
    assert study.count_look(file, look | {"teachers": 11}) == 2


def test_an_audit_of_an_earlier_version_is_left_out(tmp_path, monkeypatch):
    member, kept = zoo.members()[0], {name: 0 for name in parts.OF_LOOKS}
    looks = {"old": kept | {"scale": 1.0}, "new": kept}
    stored = {
        key: types.SimpleNamespace(meta={"looks": seen, "seconds": 9.0}, path=Path()) for key, seen in looks.items()
    }
    monkeypatch.setattr(parts.Store, "find", lambda _, stage, key: stored[key])
    for key in looks:
        stages = {"audit": {"key": key}, "teacher": {"key": "t"}}
        config = {"teacher": {"name": member.method.partition("=")[2].split()[0]}}
        result = {"seed": member.seed, "config": config, "audit": {}, "stages": stages, "teacher": {}}
        (tmp_path / "runs" / key).mkdir(parents=True)
        (tmp_path / "runs" / key / "result.json").write_text(json.dumps(result))
    assert [t.looks for t in parts.audited(tmp_path)] == [Looks(**kept)]


def test_without_teachers_it_is_said_how_they_are_made(tmp_path):
    with pytest.raises(SystemExit, match=f"{tmp_path} has no finished teacher of the zoo; scripts/audit/zoo.py --out"):
        parts.audited(tmp_path)


def test_a_score_that_not_every_teacher_has_is_left_out(teachers):
    few = teachers[:8]
    without = [*few[:-1], replace(few[-1], baselines={})]
    assert "TRODO" in tables(few) and "TRODO" not in tables(without)


def test_the_answer_to_a_neighbouring_domain_is_the_most_frequent_one(linear):
    from outside import answers

    images = torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.7, 0.0], [0.0, 0.9]]).view(4, 1, 2, 1)
    found = answers(linear([[9.0, 0.0], [0.0, 9.0], [0.0, 0.0]]), images)
    assert found == {"sure": 100.0, "class": 0, "share": 75.0}
    assert answers(linear([[0.1, 0.0], [0.0, 0.1], [0.0, 0.0]]), images)["sure"] == 0.0


def test_the_suspect_is_held_against_what_a_neighbouring_domain_is_called(teachers):
    assert of_neighbours(teachers) == ""
    trapped = [t for t in teachers if t.member.trapped and t.obeyed][:3]
    classes = [judge(t.looks).suspect for t in trapped]
    classes[2] = (classes[2] + 1) % 10
    seen = [
        replace(t, outside={"sure": 99.0, "class": label, "share": share})
        for t, label, share in zip(trapped, classes, (100.0, 90.0, 60.0), strict=True)
    ]
    said = "the suspect is the most frequent answer there for 2, to 90 % of the images (60 to 100)"
    assert said in of_neighbours(seen)


def test_what_is_left_out_of_the_fit_is_told_all_the_same(teachers):
    few, groups = [], list(itertools.product(("patch", "sig"), ("cnn", "mlp"), ("digits", "usps")))
    for is_in in (True, False):
        part = [t for t in teachers if t.member.trapped is is_in and (t.obeyed or not is_in)]
        for t, (trap, network, domain) in zip(part, 2 * groups, strict=False):
            few.append(replace(t, member=replace(t.member, trap=trap, network=network, domain=domain)))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in study.left_out(few).splitlines()[2:]]
    left = ["trap: patch", "trap: sig", "network: cnn", "network: mlp", "images: digits", "images: usps"]
    assert [row[:2] for row in rows] == [[name, "8 / 16" if "trap" in name else "8 / 8"] for name in left]
    assert all(float(row[2]) > 0.9 and float(row[3]) > 0.9 for row in rows)
