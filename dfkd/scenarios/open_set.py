"""Open-set NTL: the OOD domain has other classes (arXiv 2507.04119)."""

from dfkd.domains import Domain
from dfkd.scenarios.base import Scenario


def open_set(id: Domain, ood: Domain, ood_label: int = 0) -> Scenario:
    """OOD images have none of the ID classes; the teacher is taught to call them all `ood_label`."""
    return Scenario(id, ood, ood_label)
