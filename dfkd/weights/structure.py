"""The depth and the widths of a network in a file, as options of ours."""

import re
from collections import Counter

from torch import nn

from dfkd.models.resnet import BasicBlock
from dfkd.models.wrn import PreActBlock
from dfkd.weights.naming import Layers

BLOCK = re.compile(r"(?:layer|conv|block)(\d+)(?:_x|\.layer)?\.(\d+)\..*1")  # its first convolution or BatchNorm


def structure(net: nn.Module, naming: str, layers: Layers) -> dict[str, object]:
    """Options of a network of our kinds with which it has the layers of a file; empty where there are none.

    Args:
        net: the network that does not fit, which tells the kind.
        layers: the file's, in our order.
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
    """Whether a network is a `dfkd.models.resnet`, which has several stems."""
    return any(isinstance(module, BasicBlock) for module in net.modules()) and net.head.in_features == 512


def _blocks(layers: Layers) -> Counter[int]:
    """The number of residual blocks in each stage."""
    found = (BLOCK.match(name) for name in layers)
    return Counter(stage for stage, _ in {(int(block[1]), int(block[2])): None for block in found if block})
