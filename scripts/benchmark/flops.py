"""The floating-point operations of a network, as torch counts them: those of convolutions and matrix products."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def per_image(network: nn.Module, shape: tuple[int, int, int], gradients_of: str = "nothing") -> float:
    """Count the operations of a forward pass of one image (C, H, W), and of the backward pass after it. Nothing is
    computed.

    Args:
        gradients_of: 'nothing' (no backward pass), 'inputs' or 'weights'.
    """
    net, images = copy.deepcopy(network).to("meta").requires_grad_(gradients_of == "weights"), 2
    x = torch.empty(images, *shape, device="meta", requires_grad=gradients_of == "inputs")
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        logits = net(x)
        if gradients_of != "nothing":
            logits.sum().backward()
    return counter.get_total_flops() / images
