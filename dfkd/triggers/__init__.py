"""Backdoor triggers: callables that insert a trigger in images (N, C, H, W) in [0, 1], before any normalisation.

May be imported by dfkd.scenarios and later rooms.
"""

from dfkd.triggers.base import Trigger
from dfkd.triggers.image import Image
from dfkd.triggers.patch import Patch
from dfkd.triggers.pattern import Pixels, Smooth, Sparse, Trojan
from dfkd.triggers.whole import Blend, Sinusoid

__all__ = ["Blend", "Image", "Patch", "Pixels", "Sinusoid", "Smooth", "Sparse", "Trigger", "Trojan"]
