"""Ways to make images from a teacher alone."""

from dfkd.synthesizers.base import Steer, Synthesizer, Synthetic
from dfkd.synthesizers.cake import CAKE
from dfkd.synthesizers.cake_generator import CAKEGenerator
from dfkd.synthesizers.cmi import CMI
from dfkd.synthesizers.controls import NoiseImages, RealImages
from dfkd.synthesizers.deepinversion import AdaptiveDeepInversion, DeepInversion
from dfkd.synthesizers.dfq import DFQ
from dfkd.synthesizers.fast import Fast
from dfkd.synthesizers.nayer import NAYER

__all__ = [
    "CAKE",
    "CMI",
    "DFQ",
    "NAYER",
    "AdaptiveDeepInversion",
    "CAKEGenerator",
    "DeepInversion",
    "Fast",
    "NoiseImages",
    "RealImages",
    "Steer",
    "Synthesizer",
    "Synthetic",
]
