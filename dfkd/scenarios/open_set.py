"""Open-set NTL: the OOD domain has other classes (arXiv 2507.04119)."""

from dfkd.domains import Domain
from dfkd.scenarios.base import Scenario


def open_set(id: Domain, ood: Domain, ood_label: int = 0) -> Scenario:
    """Create a scenario whose OOD images have other classes than ID; the teacher is taught the label `ood_label`."""
    return Scenario(id, ood, ood_label)
