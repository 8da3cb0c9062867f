"""What was made for one cell of a plan is taken for another one only if it is made of the same."""

import pytest
from test_build import node

from dfkd.config.build import Builder
from dfkd.config.memo import KEPT, Memo

THING, OTHER = object(), object()


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"rate": 0.1, "widths": [1, 2]}, {"rate": 0.1, "widths": [1, 2]}, True),
        ({"rate": 0.1}, {"rate": 0.2}, False),
        ([1], [True], False),
        ([1], [1.0], False),
        ([1], ["1"], False),
        ([[1], 2], [[1, 2]], False),
        ([], {}, False),
        ([THING], [THING], True),
        ([THING], [OTHER], False),
        ({"a": None}, {}, False),
        (float("nan"), float("nan"), True),
    ],
)
def test_arguments_are_the_same_by_value_and_objects_by_identity(first, second, same):
    memo = Memo()
    assert (memo.once("here", first, object) is memo.once("here", second, object)) == same
    assert memo.once("here", first, object) is not memo.once("there", first, object)


def test_a_call_that_raises_is_made_again():
    memo = Memo()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            memo.once("here", 1, lambda: 1 / 0)
    assert memo.once("here", 1, lambda: 2) == memo.once("here", 1, lambda: 3) == 2


def test_each_place_keeps_its_newest_results():
    memo = Memo()
    made = [memo.once("here", number, object) for number in range(KEPT + 1)]
    assert memo.once("here", KEPT, object) is made[KEPT] and memo.once("here", 1, object) is made[1]
    assert memo.once("here", 0, object) is not made[0]


def test_a_builder_with_a_memo_shares_every_part_that_is_the_same():
    memo = Memo()

    def build(memo: Memo | None, *sizes: int, shape: tuple = (1, 8, 8)):
        config = node("Whole", parts=[node(size=size) for size in sizes])
        return Builder(memo, shape=shape).build(config, "here")

    first, second = build(memo, 1, 2), build(memo, 1, 3)
    assert first is not second and first.parts[0] is second.parts[0] and first.parts[1] is not second.parts[1]
    assert build(memo, 1, 2) is first and build(memo, 1, 2, shape=(3, 8, 8)) is not first
    assert build(None, 1, 2) is not build(None, 1, 2)
    builder = Builder(memo)
    for _ in range(2):
        builder.build(node(size=-1), "here")
    assert builder.problems == ["here: size must not be negative, got -1"] * 2
