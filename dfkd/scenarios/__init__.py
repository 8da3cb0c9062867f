"""Scenarios: an ID domain, on which the teacher is right, and an OOD domain, on which it is deliberately wrong.

May be imported by dfkd.evaluate and later rooms.
"""

from dfkd.scenarios.backdoor import backdoor
from dfkd.scenarios.base import Scenario
from dfkd.scenarios.close_set import close_set
from dfkd.scenarios.none import none
from dfkd.scenarios.open_set import open_set

__all__ = ["Scenario", "backdoor", "close_set", "none", "open_set"]
