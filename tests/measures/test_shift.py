import pytest

from dfkd.domains import digits, textures, tinted
from dfkd.measures import ShiftedAccuracy
from dfkd.scenarios import none


def test_the_own_test_images_are_no_shift(exam, small_digits):
    assert ShiftedAccuracy(small_digits)(exam) == pytest.approx(
        100 * (exam.id.answer == exam.id.labels).float().mean().item(), abs=0.01
    )


def test_a_shift_costs_accuracy_and_its_images_are_brought_to_the_shape_of_id(exam):
    other = tinted(digits(size=16, channels=3))
    shifted = ShiftedAccuracy(other, images=200)
    shifted.check(exam.scenario)
    assert 10 < shifted(exam) < ShiftedAccuracy(digits(size=8))(exam) - 10


def test_another_kind_of_domain_is_refused(small_digits, plane):
    with pytest.raises(ValueError, match="'digits' has 10 classes, 'textures' has 4: a shift needs the same ones"):
        ShiftedAccuracy(textures(8)).check(none(small_digits))
    with pytest.raises(ValueError, match="'digits' and 'plane' are images and points"):
        ShiftedAccuracy(plane).check(none(small_digits))
