"""Adversarial attacks, used to split pools and to evaluate teachers."""

from dfkd.attacks.pgd import PGD, AttackResult, attack_warnings, is_deterministic

__all__ = ["PGD", "AttackResult", "attack_warnings", "is_deterministic"]
