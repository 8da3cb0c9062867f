"""Arrays of others: read rightly, or refused with what to write instead."""

import numpy as np
import pytest
import torch

from dfkd.domains import npz
from dfkd.domains.arrays import as_images, as_labels, count_classes

GREY = np.random.RandomState(0).randint(0, 256, (6, 5, 4), dtype=np.uint8)
GREY[0, 0, :2] = 0, 255
UNIT = GREY / 255


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.int64, np.uint64])
def test_integers_of_any_width_in_the_range_of_bytes_are_bytes(dtype):
    x = as_images(GREY.astype(dtype), "x")
    assert x.dtype == torch.uint8 and np.array_equal(x[:, 0].numpy(), GREY)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_floats_of_any_width_in_the_unit_interval_are_taken(dtype):
    x = as_images(UNIT.astype(dtype), "x")
    assert x.dtype == torch.float32 and np.allclose(x[:, 0].numpy(), UNIT, atol=1e-3)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32])
def test_zeros_and_ones_are_black_and_white(dtype):
    assert as_images((GREY > 100).astype(dtype), "x").unique().tolist() == [0, 1]


@pytest.mark.parametrize("order", ["=", ">", "<"])
def test_numbers_of_either_byte_order_are_read(order):
    assert np.allclose(as_images(UNIT.astype(np.dtype("f4").newbyteorder(order)), "x")[:, 0], UNIT)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((6, 5, 4), (1, 5, 4)), ((6, 5, 4, 1), (1, 5, 4)), ((6, 5, 4, 3), (3, 5, 4)), ((6, 3, 5, 4), (3, 5, 4))],
)
def test_channels_may_come_first_or_last(shape, wanted):
    assert as_images(np.zeros(shape, np.uint8), "x").shape[1:] == wanted


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (GREY.astype(np.float32), r"x holds float images in 0\.\.255; for 0..255, save x\.astype\(numpy\.uint8\)"),
        (GREY.astype(np.int64) * 257, r"int64 images in 0\.\.65535; for 16 bits, save x / 65535"),
        (UNIT * 2 - 1, r"float images in -1\.\.1; for -1\.\.1, save \(x \+ 1\) / 2"),
        ((UNIT - 0.4) / 0.2, r"float images in -2.*normalised: save x \* std \+ mean"),
        (GREY.astype(np.int64) - 100, r"int64 images in -100\.\.155; use uint8"),
        (UNIT * 1e6, r"use uint8, or floats in \[0, 1\]"),
        ((GREY > 100).astype(np.uint8), "holds 0 and 1 alone.*multiply it by 255"),
        (np.where(GREY > 250, np.nan, UNIT), r"\d of 6 float images have NaN or infinite pixels; leave them out"),
        (np.where(GREY > 250, np.inf, UNIT), "NaN or infinite pixels"),
        (np.where(GREY > 250, -np.inf, UNIT), "NaN or infinite pixels"),
        (UNIT.astype(np.complex64), "complex64, not numbers"),
        (np.full((6, 5, 4), "a"), "<U1, not numbers"),
        (GREY.astype("datetime64[s]"), "not numbers"),
        (GREY[:0], "holds no images"),
        (np.uint8(3), "holds no images"),
        (GREY[:, :0], "shape"),
        (GREY[:, 0], r"shape \(4,\)"),
        (np.zeros((6, 5, 4, 4), np.uint8), "C = 1 or 3"),
        (np.zeros((6, 2, 5, 4), np.uint8), "C = 1 or 3"),
        (np.zeros((6, 3, 5, 4, 2), np.uint8), "C = 1 or 3"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_images_say_what_to_write_instead(x, said):
    with pytest.raises(ValueError, match=said):
        as_images(np.asarray(x), "x")


@pytest.mark.parametrize(
    "y",
    [
        np.array([0, 1, 2], np.uint8), np.array([0, 1, 2], np.int16), np.array([0, 1, 2], np.uint64),
        np.array([0.0, 1.0, 2.0]), np.array([[0], [1], [2]]), np.array([[0, 1, 2]]),
    ],
)  # fmt: skip
def test_whole_numbers_of_every_type_are_labels(y):
    assert as_labels(y, "y").tolist() == [0, 1, 2] and as_labels(y, "y").dtype == torch.int64


def test_booleans_are_two_classes():
    assert as_labels(np.array([True, False]), "y").tolist() == [1, 0]


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.array([], str), r"y holds no labels"),
        (np.zeros((3, 0)), r"y holds no labels"),
        (np.eye(3), r"y has the shape \(3, 3\).*one-hot, save y\.argmax\(1\)"),
        (np.zeros((4, 2, 2)), r"the shape \(4, 2, 2\); labels are one whole number an image"),
        (np.array([0, 1.5]), r"whole numbers, got float64 such as 1\.5"),
        (np.array([0, np.nan]), "such as nan"),
        (np.array([0, np.inf]), "such as inf"),
        (np.array([0, 1j]), "complex128"),
        (np.array(["ant", "bee"]), r"<U3.*'ant'.*numpy\.unique\(y, return_inverse=True\)\[1\]"),
        (np.array([b"ant", b"bee"]), r"numpy\.unique"),
        (np.array(["2020-01-01"], "datetime64[D]"), "datetime64"),
        (np.array([-1, 0, 1]), r"labels -1\.\.1; they must begin at 0"),
        (np.array([0, 2**40]), "number the classes 0, 1, 2"),
        (np.array([0, 2**64 - 1], np.uint64), "number the classes 0, 1, 2"),
        (np.array([0, 1e300]), "number the classes 0, 1, 2"),
    ],
)
def test_arrays_that_are_no_labels_say_what_to_write_instead(y, said):
    with pytest.raises(ValueError, match=said):
        as_labels(y, "y")


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ([1, 2, 3, 4], [1, 2], r"labels 1\.\.4, and the first class is 0; save y - 1, or set classes=5"),
        ([10, 20], [10, 20], r"save y - 10, or set classes=21"),
        ([0, 1, 70_000], [0, 1], r"makes 70001 classes of 3 training images; save numpy\.unique"),
        ([0, 1], [0, 7], r"makes 8 classes of 2 training images"),
    ],
)
def test_labels_that_make_no_classes_say_what_to_write_instead(train, test, said):
    with pytest.raises(ValueError, match=said):
        count_classes(torch.tensor(train), torch.tensor(test), "mine.npz")


def test_classes_are_counted_over_both_parts():
    assert count_classes(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 3]), "mine.npz") == 4


def test_labels_from_1_are_taken_where_the_number_of_classes_is_given(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=GREY, y_train=[1, 2] * 3, x_test=GREY, y_test=[1, 2] * 3)
    assert npz(str(tmp_path / "a.npz"), classes=3, val_share=0.5).classes == 3
    with pytest.raises(ValueError, match=r"a\.npz has labels 1\.\.2.*classes=3"):
        npz(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("other", [GREY[:, :3], GREY[..., None].repeat(3, 3)])
def test_parts_of_different_shapes_or_channels_are_told_with_what_brings_them_together(tmp_path, other):
    np.savez(tmp_path / "a.npz", x_train=GREY, y_train=[0, 1] * 3, x_test=other, y_test=[0, 1] * 3)
    with pytest.raises(ValueError, match=r"1x5x4 training images and \dx\dx4 test images; set data\.size"):
        npz(str(tmp_path / "a.npz"), val_share=0.5)
    assert npz(str(tmp_path / "a.npz"), val_share=0.5, size=4, channels=1).shape == (1, 4, 4)


def test_a_damaged_archive_is_named(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x_train=GREY, y_train=[0, 1] * 3, x_test=GREY, y_test=[0, 1] * 3)
    whole = (tmp_path / "a.npz").read_bytes()
    for place in range(0, len(whole), 7):  # no flipped bit may come through as something else than a clear error
        (tmp_path / "a.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            npz(str(tmp_path / "a.npz"), val_share=0.5)
        except ValueError as error:
            assert "a.npz" in str(error)
