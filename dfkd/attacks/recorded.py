"""PGD as a CUDA graph."""

from collections.abc import Callable

import torch
from torch import Tensor

from dfkd.attacks.pgd import PGD, AttackResult
from dfkd.machine.precision import exact_float32
from dfkd.machine.runtime import Runtime
from dfkd.models import Teacher


class RecordedPGD:
    """Attacks batches of a few sizes on a teacher, as a CUDA graph where that is faster.

    A graph has one size, so that it shows the teacher all images in all steps. What the attack does not use, the
    answers to images that have flipped, is not counted: `Teacher.evals` is what it is without a graph.

    Args:
        runtime: records the attack.
    """

    def __init__(self, runtime: Runtime):
        self.runtime = runtime
        self.walks: dict[int, Callable[..., tuple]] = {}  # by size of batch: pool and generator take turns

    def checkpoint_state(self) -> dict:
        """Return the state for a checkpoint: empty, because a resumed run records anew."""
        return {}

    def __call__(
        self,
        attack: PGD,
        teacher: Teacher,
        images: Tensor,
        generator: torch.Generator,
        logits: Tensor,
        stop_when_flipped: bool = True,
    ) -> AttackResult:
        """Return what `attack.attack` returns; the arguments are the same."""
        images, size = images.detach(), len(images)
        if size not in self.walks:
            what = f"an attack on {size} images"
            self.walks[size] = self.runtime.captured(what, _show_all, plain=_leave_out)
        start, shown = attack.draw(images, generator), teacher.evals.total()
        found = self.walks[size](attack, teacher, images, start, logits.detach(), stop_when_flipped)
        result = AttackResult(*found)
        if isinstance(result.evals, Tensor):
            result.evals = int(result.evals)
            teacher.count(result.evals - (teacher.evals.total() - shown))
        return result


def _show_all(*arguments: object) -> tuple:
    return _walk(*arguments, leave_out=False)


def _leave_out(*arguments: object) -> tuple:
    return _walk(*arguments, leave_out=True)


def _walk(attack: PGD, teacher: Teacher, images: Tensor, *others: object, leave_out: bool) -> tuple:
    with exact_float32(images.device):
        result = attack.walk(teacher, images, *others, leave_out=leave_out)
    return result.flipped, result.margin, result.evals, result.dead, result.saturated
