"""Ways to make images from a teacher alone."""

from dfkd.synthesizers.base import Steer, Synthesizer, Synthetic
from dfkd.synthesizers.cake import CAKE
from dfkd.synthesizers.controls import NoiseImages, RealImages
from dfkd.synthesizers.dafl import DAFL
from dfkd.synthesizers.dfad import DFAD
from dfkd.synthesizers.dfq import DFQ
from dfkd.synthesizers.mad import MAD
from dfkd.synthesizers.zskt import ZSKT

__all__ = [
    "CAKE",
    "DAFL",
    "DFAD",
    "DFQ",
    "MAD",
    "ZSKT",
    "NoiseImages",
    "RealImages",
    "Steer",
    "Synthesizer",
    "Synthetic",
]
