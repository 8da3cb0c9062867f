"""Measures beyond accuracy: calibration, robustness, shift and membership, for runs whose configuration asks for them.

May be imported by dfkd.stages and later rooms.
"""

from dfkd.measures.base import Measure
from dfkd.measures.calibration import BrierScore, CalibrationError, NegativeLogLikelihood
from dfkd.measures.class_accuracy import ClassAccuracy
from dfkd.measures.corrupted import CorruptedAccuracy
from dfkd.measures.corruptions import CORRUPTIONS
from dfkd.measures.leakage import measure_leakage
from dfkd.measures.membership import MembershipAUROC, MembershipTPR
from dfkd.measures.robustness import PGDAccuracy
from dfkd.measures.shift import ShiftedAccuracy

__all__ = [
    "CORRUPTIONS",
    "BrierScore",
    "CalibrationError",
    "ClassAccuracy",
    "CorruptedAccuracy",
    "Measure",
    "MembershipAUROC",
    "MembershipTPR",
    "NegativeLogLikelihood",
    "PGDAccuracy",
    "ShiftedAccuracy",
    "measure_leakage",
]
