"""Copies of what a graph takes and gives, and work beside each other."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dfkd.machine.graphs import copied, copy_all, side_by_side


class Operations(TorchDispatchMode):
    """Notes the names of the operations that compute something."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.name()
        if not name.startswith("aten::empty"):
            self.names.append(name)
        return function(*arguments, **(options or {}))


def test_all_tensors_of_one_floating_type_are_copied_at_once():
    old = {"a": torch.ones(3), "b": (torch.tensor(2.0), torch.tensor([1, 2]), None)}, [torch.zeros(1)], "text"
    with Operations() as operations:
        new = copied(old)
    assert operations.names == ["aten::copy_", "aten::_foreach_copy_"]
    (first, listed, text), (old_first, old_listed, _) = new, old
    assert first["a"].tolist() == [1, 1, 1] and first["b"][0].item() == 2 and first["b"][1].tolist() == [1, 2]
    assert first["a"] is not old_first["a"] and first["b"][2] is None
    assert listed is old_listed and text == "text"


def test_a_copy_has_the_memory_format_and_no_gradient():
    maps = torch.rand(2, 3, 4, 5, requires_grad=True).to(memory_format=torch.channels_last)
    (copy,) = copied((maps,))
    assert torch.equal(copy, maps) and copy.is_contiguous(memory_format=torch.channels_last) and not copy.requires_grad


def test_leaves_with_gradients_get_new_values(random):
    leaf, number = torch.zeros(2, requires_grad=True), torch.zeros((), dtype=torch.long)
    copy_all([leaf, number], [torch.ones(2), torch.tensor(3)])
    assert leaf.tolist() == [1, 1] and leaf.is_leaf and leaf.requires_grad and number.item() == 3
    copy_all([], [])


def test_what_runs_beside_each_other_comes_back_in_order(device):
    numbers = [torch.full((1000,), float(n), device=device) for n in range(5)]
    found = side_by_side(device, [lambda x=x: (x * x).sum() for x in numbers])
    assert [value.item() for value in found] == [1000 * n * n for n in range(5)]
