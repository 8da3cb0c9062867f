"""Attacks, used by the split and by the evaluation alike."""

from dfkd.attacks.pgd import PGD, AttackResult, attack_warnings, is_deterministic

__all__ = ["PGD", "AttackResult", "attack_warnings", "is_deterministic"]
