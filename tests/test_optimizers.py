"""The fused optimizers give the numbers of the plain ones, however tensors lie in memory."""

import copy
import subprocess
import sys

import pytest
import torch

from dfkd.training.optimizers import fused

KINDS = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "adam": (torch.optim.Adam, {"betas": (0.5, 0.99), "weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
}
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("of_gradients", LAYOUTS)
def test_they_take_the_steps_of_the_plain_ones(kind, layout, of_gradients, random):
    made, options = KINDS[kind]
    start = torch.randn(4, 3, 5, 5, generator=random)
    gradients = [torch.randn(4, 3, 5, 5, generator=random) for _ in range(3)]
    ours, plain = (start.clone(memory_format=layout).requires_grad_() for _ in range(2))
    both = [(ours, fused(made, [ours], lr=0.1, **options)), (plain, made([plain], lr=0.1, **options))]
    for gradient in gradients:
        for tensor, optimizer in both:
            tensor.grad = gradient.clone(memory_format=of_gradients)
            optimizer.step()
    assert torch.allclose(ours, plain, atol=1e-6) and not torch.allclose(ours, start, atol=1e-2)
    assert ours.stride() == start.clone(memory_format=layout).stride()


def test_groups_keep_their_options_and_what_has_no_gradient_stays():
    a, b, still = (torch.ones(2).requires_grad_() for _ in range(3))
    optimizer = fused(torch.optim.SGD, [{"params": [a, still], "lr": 0.5}, {"params": [b]}], lr=0.1)
    for tensor in (a, b):
        tensor.grad = torch.ones(2)
    optimizer.step()
    assert a.tolist() == [0.5, 0.5] and b.tolist() == pytest.approx([0.9, 0.9]) and still.tolist() == [1, 1]


def test_on_another_device_it_is_the_plain_one():
    assert fused(torch.optim.Adam, [torch.ones(2, device="meta").requires_grad_()]).defaults["fused"] is False


def test_a_first_step_does_not_import_the_compiler():
    code = """
import sys, torch
from dfkd.recipe import Recipe
for optimizer in ("sgd", "adam"):
    layer = torch.nn.Linear(2, 2)
    stepper = Recipe(optimizer=optimizer).make(layer.parameters(), 10)
    stepper.step(layer(torch.ones(1, 2)).sum())
    stepper.optimizer.load_state_dict(stepper.optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_of_the_kind_and_its_state_can_be_put_back(kind):
    made, options = KINDS[kind]
    tensors = [torch.ones(2).requires_grad_() for _ in range(2)]
    one, other = (fused(made, [tensor], lr=0.1, **options) for tensor in tensors)
    assert isinstance(one, made) and type(one) is type(other)
    tensors[0].grad = torch.ones(2)
    one.step()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    with torch.no_grad():
        tensors[1].copy_(tensors[0])
    for tensor, optimizer in zip(tensors, (one, other), strict=True):
        tensor.grad = torch.full((2,), 0.5)
        optimizer.step()
    assert torch.equal(*tensors)
    one.zero_grad()
    assert tensors[0].grad is None
