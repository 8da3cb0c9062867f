"""Infers the depth and the widths of a network from its layers, as options of our networks."""

import re
from collections import Counter

from torch import nn

from dfkd.models.resnet import BasicBlock
from dfkd.models.wrn import PreActBlock
from dfkd.weights.naming import Layers

# The first convolution or BatchNorm of a residual block; captures the numbers of the stage and of the block.
BLOCK = re.compile(r"(?:layer|conv|block)(\d+)(?:_x|\.layer)?\.(\d+)\..*1")


def structure(net: nn.Module, naming: str, layers: Layers) -> dict[str, object]:
    """Return options with which our network has the layers of a file; empty if there are none.

    Args:
        net: our network that does not fit; its type decides which options there are.
        naming: name of the file's naming.
        layers: layers of the file, in our order.
    """
    weights = [layer["weight"] for layer in layers.values() if "weight" in layer]
    maps = [weight.shape[0] for weight in weights if weight.dim() == 4]
    linear = [weight.shape for weight in weights if weight.dim() == 2]
    kinds = {type(module) for module in net.modules()}
    blocks = list(_blocks(layers).values())
    if not linear:
        return {}
    if naming.endswith("WRN") and PreActBlock in kinds:
        return {"depth": 6 * blocks[0] + 4, "widen": linear[-1][1] // 64}
    if naming.endswith("ResNet") and has_stem(net) and linear[-1][1] == 512 and len(blocks) == 4:
        return {"blocks": blocks}
    if naming == "CAKE CNN":
        return {"widths": maps}
    if naming.endswith("LeNet"):
        return {"widths": [*maps, linear[0][0]]}
    if naming == "CAKE MLP":
        return {"hidden": linear[0][0], "layers": len(linear) - 1}
    return {}


def has_stem(net: nn.Module) -> bool:
    """Whether a network is a `dfkd.models.resnet`, the only network with the option `stem`."""
    return any(isinstance(module, BasicBlock) for module in net.modules()) and net.head.in_features == 512


def _blocks(layers: Layers) -> Counter[int]:
    """Count the residual blocks in each stage."""
    matches = (BLOCK.match(name) for name in layers)
    return Counter(stage for stage, _ in {(int(block[1]), int(block[2])): None for block in matches if block})
