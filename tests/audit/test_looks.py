"""The single looks at a teacher, and all of them together."""

import torch
from by_hand import CLASSES, TARGET

from dfkd.audit import LOOKS, why_not
from dfkd.audit.last_layer import sum_of_weights
from dfkd.audit.looks import by_class
from dfkd.audit.margins import largest_margins
from dfkd.audit.scouting import answers_to_scouts
from dfkd.audit.synthetic import invert


def test_values_are_averaged_class_by_class():
    assert by_class(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, 1]), 2).tolist() == [1.0, 2.5]


def test_the_largest_margin_is_found(by_hand, stream):
    found = largest_margins(by_hand(False), 2, 60, stream)
    assert found.shape == (CLASSES,)
    assert (found > 6).all() and (found < 8).all()  # 8 where one third is white and the others are black
    assert largest_margins(by_hand(True), 2, 60, stream).argmax() == TARGET


def test_scouts_count_only_firm_answers(by_hand, stream):
    answers = answers_to_scouts(by_hand(False), 30, 3, stream)
    assert answers.images.shape[0] == 30 and answers.firm.shape == (CLASSES,)
    assert 0 <= answers.firm.sum() <= 1
    firm = answers_to_scouts(by_hand(True), 30, 3, stream).firm
    assert firm.argmax() == TARGET


def test_the_last_layer_is_read_where_there_is_one(by_hand):
    assert sum_of_weights(by_hand(False)).tolist() == [8.0] * CLASSES
    teacher = by_hand(False)
    teacher.net.head = torch.nn.Identity()
    assert sum_of_weights(teacher).tolist() == [0.0] * CLASSES


def test_inversion_makes_as_many_images_of_every_class(teacher, runtime):
    made = invert(teacher, runtime, 0, 2, 3)
    assert made.images.shape == (20, *teacher.shape)
    assert made.images.min() >= 0 and made.images.max() <= 1
    assert made.labels.bincount().tolist() == [2] * 10
    assert 0 <= made.hit <= 1


def test_all_looks_have_a_number_of_every_class_and_leave_the_teacher_alone(looks_at, by_hand):
    looks = looks_at(False)
    assert set(looks.seconds) == set(LOOKS)
    assert all(len(values) == CLASSES for values in looks.values.values())
    assert {*LOOKS} - {"images"} <= set(looks.values)
    assert len(looks.radii) == len(looks.labels) == 4 * CLASSES
    assert 1 / CLASSES <= looks.confidence <= 1
    assert by_hand(False).net.head.weight.equal(8 * torch.eye(3))


def test_only_images_and_not_too_many_classes_can_be_audited():
    assert why_not(10) is None and why_not(100) is None
    assert "at most 100 classes; there are 1000" in why_not(1000)
    assert "something else" in why_not(10, has_pixels=False)
