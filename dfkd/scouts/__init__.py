"""Scouts: images that mean nothing, drawn without any data, to see what a teacher answers outside of its domain.

May be imported by dfkd.audit and later rooms.
"""

from dfkd.scouts.base import Mixture, Scouts
from dfkd.scouts.noise import SpectralNoise
from dfkd.scouts.shapes import Colours, Shapes

__all__ = ["Colours", "Mixture", "Scouts", "Shapes", "SpectralNoise"]
