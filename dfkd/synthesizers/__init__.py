"""Ways to make images from a teacher alone."""

from dfkd.synthesizers.base import Steer, Synthesizer, Synthetic
from dfkd.synthesizers.cake import CAKE
from dfkd.synthesizers.controls import NoiseImages, RealImages
from dfkd.synthesizers.deepinversion import AdaptiveDeepInversion, DeepInversion
from dfkd.synthesizers.dfq import DFQ

__all__ = [
    "CAKE",
    "DFQ",
    "AdaptiveDeepInversion",
    "DeepInversion",
    "NoiseImages",
    "RealImages",
    "Steer",
    "Synthesizer",
    "Synthetic",
]
