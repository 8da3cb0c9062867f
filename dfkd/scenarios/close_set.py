"""Close-set NTL: two domains with the same classes (arXiv 2507.04119)."""

from dfkd.domains import Domain
from dfkd.scenarios.base import Scenario


def close_set(id: Domain, ood: Domain) -> Scenario:
    """ID and OOD share their labels; the teacher unlearns the OOD ones."""
    return Scenario(id, ood, shared_labels=True)
