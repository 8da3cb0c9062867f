"""The scenario without a trap: an ID domain, and no OOD domain."""

from dfkd.domains import Domain
from dfkd.scenarios.base import Scenario


def none(id: Domain) -> Scenario:
    """Create a scenario with an ID domain only, for an ordinary teacher."""
    return Scenario(id)
