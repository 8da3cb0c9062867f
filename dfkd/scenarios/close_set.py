"""Close-set NTL: two domains with the same classes (arXiv 2507.04119)."""

from dfkd.domains import Domain
from dfkd.scenarios.base import Scenario


def close_set(id: Domain, ood: Domain) -> Scenario:
    """Create a scenario in which both domains have the same classes; the teacher is made wrong on the OOD domain."""
    return Scenario(id, ood, shared_labels=True)
