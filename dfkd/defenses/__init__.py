"""Ways to escape the OOD trap."""

from dfkd.defenses.abd import ABD
from dfkd.defenses.atesc import ATEsc
from dfkd.defenses.base import Defense
from dfkd.defenses.criteria import All, Criterion, Inverted, PGDFlip, Random

__all__ = ["ABD", "ATEsc", "All", "Criterion", "Defense", "Inverted", "PGDFlip", "Random"]
