"""Adversarial attacks: they split pools and measure teachers.

May be imported by dfkd.audit and later rooms.
"""

from dfkd.attacks.pgd import PGD, AttackResult, attack_warnings, is_deterministic
from dfkd.attacks.radius import answers_and_radii, first_order_radius, flip_radius
from dfkd.attacks.recorded import RecordedPGD

__all__ = [
    "PGD",
    "AttackResult",
    "RecordedPGD",
    "answers_and_radii",
    "attack_warnings",
    "first_order_radius",
    "flip_radius",
    "is_deterministic",
]
