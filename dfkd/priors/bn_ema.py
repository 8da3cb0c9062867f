"""A BatchNorm prior with statistics averaged over the rounds."""

import torch
from torch import Tensor

from dfkd.priors.base import PriorTerm, TeacherPass
from dfkd.priors.bn import distance, joined


class BatchNormEMA(PriorTerm):
    """The BN prior of Fast (arXiv 2112.06253): the statistics of all rounds together should match the running ones.

        sum over layers of || running_var - v ||_2 + || running_mean - m ||_2,
        m = (1 - momentum) * Mean(h) + momentum * Mean_ema,   v likewise with the biased Var(h)

    h is the layer's input. In the first round there is no average yet, and the term equals the plain BN prior. At the
    end of each round Mean_ema <- momentum * Mean_ema + (1 - momentum) * Mean(h), detached, with h of the round's last
    forward pass. The gradient in later rounds is therefore scaled by 1 - momentum. `start` resets the averages.

    Args:
        weight: weight of the term.
        momentum: momentum of the averages, in [0, 1).

    Raises:
        ValueError: momentum is outside [0, 1), or (when called) there is more than one set, as sets are independent.
    """

    needs_batch_norm = True
    remembers = True

    def __init__(self, weight: float = 1.0, momentum: float = 0.9):
        super().__init__(weight)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        self.momentum = momentum
        self.start()

    def start(self) -> None:
        self.memory: Tensor | None = None  # the averages of all layers, in the form of `joined`
        self.shares: Tensor | None = None  # (2,), of the batch's statistics and of the averages in the blend

    def remember(self, teacher_pass: TeacherPass) -> None:
        blended = self._blended(teacher_pass).detach()
        self.memory.copy_(blended)
        for share, value in zip(self.shares, (1 - self.momentum, self.momentum), strict=True):
            share.fill_(value)

    def __call__(self, teacher_pass: TeacherPass) -> Tensor:
        return distance(teacher_pass.statistics, self._blended(teacher_pass))

    def _blended(self, teacher_pass: TeacherPass) -> Tensor:
        """Return m and v of all layers, in the form of `joined`.

        The averages and the shares are tensors that keep their place, so that one CUDA graph holds for all rounds. In
        the first round the averages have a share of 0.
        """
        if teacher_pass.sets != 1:
            raise ValueError(f"the bn_ema prior takes one set at a time, got sets={teacher_pass.sets}")
        now = joined(teacher_pass.statistics)
        if self.memory is None:
            self.memory = torch.zeros_like(now)
            self.shares = torch.tensor([1.0, 0.0], dtype=now.dtype, device=now.device)
        return self.shares[0] * now + self.shares[1] * self.memory
