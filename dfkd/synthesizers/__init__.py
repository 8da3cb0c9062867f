"""Synthesizers: methods that make images from the teacher alone, and control experiments.

May be imported by dfkd.audit and later rooms.
"""

from dfkd.synthesizers.base import Steer, Synthesizer, Synthetic
from dfkd.synthesizers.cake import CAKE
from dfkd.synthesizers.cake_generator import CAKEGenerator
from dfkd.synthesizers.cmi import CMI
from dfkd.synthesizers.controls import NoiseImages, RealImages
from dfkd.synthesizers.dafl import DAFL
from dfkd.synthesizers.deepinversion import AdaptiveDeepInversion, DeepInversion
from dfkd.synthesizers.dfad import DFAD
from dfkd.synthesizers.dfq import DFQ
from dfkd.synthesizers.fast import Fast
from dfkd.synthesizers.mad import MAD
from dfkd.synthesizers.nayer import NAYER
from dfkd.synthesizers.zskt import ZSKT

__all__ = [
    "CAKE",
    "CMI",
    "DAFL",
    "DFAD",
    "DFQ",
    "MAD",
    "NAYER",
    "ZSKT",
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
