"""Step size and noise of pixel-space synthesis (CAKE, arXiv 2306.02090)."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Noise:
    """Schedule of the step size eps over the sets of a pool, and Langevin noise in the steps.

        none:      eps is not used; the step size is the synthesizer's own step_size
        constant:  eps_t = eps
        linear:    log10 eps_t = log10 eps - decades * t / T
        cosine:    log10 eps_t = log10 eps - decades + decades / 2 * (1 + cos(pi t / T))

    for set t = 0 .. T - 1: the schedule runs over the sets, not over the steps of one set, and its end value (t = T) is
    not reached. With `langevin`, every step adds sqrt(2 eps_t) * N(0, 1) to the pixels.

    Args:
        schedule: one of the four names above.
        eps: eps_0, in the teacher's normalised input space.
        decades: number of powers of ten by which 'linear' and 'cosine' reduce eps.
        langevin: whether to add Langevin noise.

    Raises:
        ValueError: an unknown schedule, eps <= 0, decades < 0, or Langevin noise without an eps.
    """

    schedule: str = "linear"
    eps: float = 0.1
    decades: float = 4.0
    langevin: bool = False

    def __post_init__(self):
        known = ("none", "constant", "linear", "cosine")
        if self.schedule not in known:
            raise ValueError(f"schedule must be one of {', '.join(known)}, got '{self.schedule}'")
        if self.eps <= 0:
            raise ValueError(f"eps must be positive, got {self.eps}")
        if self.decades < 0:
            raise ValueError(f"decades must not be negative, got {self.decades}")
        if self.langevin and self.schedule == "none":
            raise ValueError("Langevin noise needs an eps; choose noise=langevin, or schedule constant, linear, cosine")

    def step_size(self, t: int, total: int) -> float | None:
        """Return eps_t of set t, 0 <= t < total; None if the schedule is 'none'."""
        if self.schedule == "none":
            return None
        if self.schedule == "constant":
            return self.eps
        if self.schedule == "linear":
            fallen = self.decades * t / total
        else:
            fallen = self.decades / 2 * (1 - math.cos(math.pi * t / total))
        return self.eps * 10**-fallen
