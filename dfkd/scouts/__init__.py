"""Scouts: images that mean nothing, drawn without any data, to see what a teacher answers outside of its domain.
Defenses and the audit may import them."""

from dfkd.scouts.base import Mixture, Scouts
from dfkd.scouts.noise import SpectralNoise
from dfkd.scouts.shapes import Colours, Shapes

__all__ = ["Colours", "Mixture", "Scouts", "Shapes", "SpectralNoise"]
