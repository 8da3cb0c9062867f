"""The scenario without a trap: there is an ID domain and no OOD domain."""

from dfkd.domains import Domain
from dfkd.scenarios.base import Scenario


def none(id: Domain) -> Scenario:
    """Only an ID domain; the teacher is an ordinary one."""
    return Scenario(id)
