import pytest
import torch
from elsewhere import ELSEWHERE, elsewhere

from dfkd.pool import Pool, Split, Stack

CPU = torch.device("cpu")


def here(size: int) -> torch.device:
    return CPU


def batch(start: int, count: int, columns=()):
    values = torch.arange(start, start + count)
    images = values.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).to(torch.uint8)
    split = Split(values % 2 == 0, values.float())
    return images, values.float().view(-1, 1), split, {name: values / 10 for name in columns}


def test_the_oldest_images_go_beyond_the_capacity_with_all_that_belongs_to_them():
    pool = Pool(capacity=4)
    pool.add(*batch(0, 3, ["eps"]))
    pool.add(*batch(3, 3, ["eps"]))
    assert pool.images[:, 0, 0, 0].tolist() == [2, 3, 4, 5]
    assert pool.logits.flatten().tolist() == [2, 3, 4, 5]
    assert pool.split.fragile.tolist() == [True, False, True, False]
    assert torch.allclose(pool.columns["eps"], torch.tensor([0.2, 0.3, 0.4, 0.5]))


@pytest.mark.parametrize("capacity", [5, 12, None])
def test_many_batches_are_what_one_after_the_other_gives(capacity):
    pool, start = Pool(capacity), 0
    for count in (3, 2, 0, 4, 1, 7, 3, 3, 20, 2, 2, 1, 1, 5):
        pool.add(*batch(start, count, ["eps"]))
        start += count
        expected = list(range(start))[-capacity:] if capacity else list(range(start))
        assert pool.images[:, 0, 1, 1].tolist() == pool.logits.flatten().tolist() == expected
        assert pool.split.score.tolist() == expected and len(pool) == len(expected)
        assert torch.allclose(pool.columns["eps"], torch.tensor(expected) / 10)


def test_a_pool_that_is_full_writes_in_place_and_what_was_put_there_counts():
    pool, places = Pool(capacity=4), set()
    for start in range(0, 40, 2):
        pool.add(*batch(start, 2))
        places.add(pool.images.untyped_storage().data_ptr())
    assert len(places) < 8
    pool.split = Split(torch.zeros(4, dtype=torch.bool), torch.full((4,), 9.0))
    pool.add(*batch(40, 2))
    assert pool.split.score.tolist() == [9, 9, 40, 41]


def test_without_a_capacity_everything_stays():
    pool = Pool()
    for start in range(0, 30, 10):
        pool.add(*batch(start, 10))
    assert len(pool) == 30


def test_one_batch_larger_than_the_capacity_is_cut():
    pool = Pool(capacity=2)
    pool.add(*batch(0, 5))
    assert pool.images[:, 0, 0, 0].tolist() == [3, 4]


def test_pixels_are_floats_in_the_unit_interval():
    pool = Pool()
    pool.add(*batch(0, 256))
    assert pool.pixels(slice(250, None)).amax().item() == 1.0
    assert pool.pixels(torch.tensor([51])).unique().item() == pytest.approx(0.2)


def test_columns_must_be_the_same_in_every_batch():
    pool = Pool()
    pool.add(*batch(0, 2, ["eps"]))
    with pytest.raises(ValueError, match="eps"):
        pool.add(*batch(2, 2))


def test_keep_takes_closed_ranges_of_all_columns():
    pool = Pool()
    pool.add(*batch(0, 10, ["eps", "other"]))
    kept = pool.select({"eps": (0.2, 0.6), "other": (0.5, 9.0)})
    assert kept.logits.flatten().tolist() == [5, 6]
    assert kept.split.score.tolist() == [5, 6]
    assert len(pool) == 10


def test_keep_names_an_unknown_column_and_an_empty_range():
    pool = Pool()
    pool.add(*batch(0, 10, ["eps"]))
    with pytest.raises(ValueError, match=r"epsilon.*eps"):
        pool.select({"epsilon": (0, 1)})
    with pytest.raises(ValueError, match="none of the pool's 10"):
        pool.select({"eps": (5, 6)})


def test_save_and_load_give_the_pool_back(tmp_path):
    pool = Pool()
    pool.add(*batch(0, 4, ["eps"]))
    pool.save(tmp_path / "pool.safetensors")
    loaded = Pool.load(tmp_path / "pool.safetensors")
    for name, value in pool._tensors().items():
        assert torch.equal(loaded._tensors()[name], value), name
        assert loaded._tensors()[name].dtype == value.dtype


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_capacity_below_one_is_refused(capacity):
    with pytest.raises(ValueError, match="capacity"):
        Pool(capacity)


def test_without_ranges_the_pool_itself_is_kept_and_nothing_copied():
    pool = Pool()
    pool.add(*batch(0, 4))
    assert pool.select({}).images.data_ptr() == pool.images.data_ptr()


@pytest.mark.parametrize("expected", [1, 5, 6, 100])
def test_a_stack_is_what_cat_would_be(expected):
    batches = [torch.arange(n * 2, dtype=torch.uint8).view(n, 2) + n for n in (2, 3, 1)]
    stack = Stack(here)
    for part in batches:
        stack.add(part, expected)
    assert torch.equal(stack.tensor(), torch.cat(batches)) and stack.tensor().dtype == torch.uint8


def test_a_stack_of_what_was_expected_never_moves():
    stack = Stack(here)
    stack.add(torch.zeros(2, 1), 6)
    place = stack.tensor().data_ptr()
    stack.add(torch.ones(4, 1), 6)
    assert stack.tensor().data_ptr() == place and len(stack.rows) == 6


def test_images_may_lie_on_the_host_and_come_to_the_device_when_asked_for():
    pool = Pool()
    pool.add(*batch(0, 6, ["eps"]))
    asked = []
    with elsewhere():
        placed = pool.to(ELSEWHERE, lambda size: asked.append(size) or CPU)
        assert placed.images.device == CPU and placed.logits.device == placed.columns["eps"].device == ELSEWHERE
        for index in (torch.tensor([5, 1]), torch.tensor([5, 1]).to(ELSEWHERE), slice(1, 3)):
            found = placed.pixels(index)
            assert found.device == ELSEWHERE
            expected = pool.pixels(index if isinstance(index, slice) else torch.tensor([5, 1]))
            assert torch.equal(found.cpu(), expected)
        kept = placed.select({"eps": (0.25, 1.0)})
        assert kept.images.device == CPU and kept.images[:, 0, 0, 0].tolist() == [3, 4, 5]
        assert kept.logits.device == ELSEWHERE
    assert asked == [6 * 4]


def test_a_stack_lies_where_all_that_is_expected_may():
    asked = []
    stack = Stack(lambda size: asked.append(size) or CPU)
    with elsewhere():
        stack.add(torch.zeros(2, 3).to(ELSEWHERE), 10)
        stack.add(torch.ones(2, 3).to(ELSEWHERE), 10)
    assert asked == [10 * 3 * 4] and stack.tensor().device == CPU
    assert stack.tensor().sum(1).tolist() == [0, 0, 3, 3]
