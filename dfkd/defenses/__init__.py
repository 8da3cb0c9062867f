"""Defenses: methods that keep a student from learning the OOD trap, their split criteria, and control experiments.

May be imported by dfkd.distill and later rooms.
"""

from dfkd.defenses.abd import ABD
from dfkd.defenses.atesc import ATEsc, Forgetting
from dfkd.defenses.base import Defense
from dfkd.defenses.criteria import All, Criterion, Inverted, PGDFlip, Random
from dfkd.defenses.dhbe import DHBE
from dfkd.defenses.escape import Escape
from dfkd.defenses.flip_radius import FlipRadius
from dfkd.defenses.observe import Observe
from dfkd.defenses.oracle import Oracle
from dfkd.defenses.scores import Confidence, Entropy, FeatureDistance, Margin, Score
from dfkd.defenses.surrogate import Surrogate

__all__ = [
    "ABD",
    "DHBE",
    "ATEsc",
    "All",
    "Confidence",
    "Criterion",
    "Defense",
    "Entropy",
    "Escape",
    "FeatureDistance",
    "FlipRadius",
    "Forgetting",
    "Inverted",
    "Margin",
    "Observe",
    "Oracle",
    "PGDFlip",
    "Random",
    "Score",
    "Surrogate",
]
