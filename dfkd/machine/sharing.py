"""Which stages several ranks make together, and which students are trained in one program.

A key does not tell how a stage was made: so only what then comes out the same (a pool of several ranks, to the bit) or
the same up to rounding (a training) is shared. All else the first rank makes alone, and one student after the other.
"""

from torch import nn

from dfkd.machine import distributed
from dfkd.machine.data_parallel import has_batch_norm, has_dropout
from dfkd.pool import Pool
from dfkd.preflight import Parts
from dfkd.recipe import Recipe


def why_alone(stage: str, parts: Parts, pool: Pool | None = None) -> str | None:
    """Why the first rank makes a stage alone ('': there is little to do), or None if all ranks share it.

    Args:
        pool: what a student is to be trained on.
    """
    if distributed.ranks() == 1:
        return None
    teacher, student, synthesizer = parts.teacher, parts.student, parts.synthesizer
    if stage == "teacher" and hasattr(teacher, "mean_loss"):  # else it is not trained
        if not teacher.mean_loss:
            return "its loss looks at a batch as a whole"
        return _training_alone(teacher.network, teacher.recipe, len(parts.scenario.id.train), parts)
    if stage == "pool" and synthesizer.rounds > synthesizer.at_once:
        return None if synthesizer.independent else "its rounds depend on each other"
    if stage == "student":
        if not parts.defense.mean_loss:
            return "the defense's loss looks at a batch as a whole"
        return _training_alone(student.network, student.recipe, len(pool), parts)
    return ""


def _training_alone(network: nn.Module, recipe: Recipe, images: int, parts: Parts) -> str | None:
    if has_batch_norm(network) and parts.runtime.device.type != "cuda":
        return "BatchNorm over all ranks needs CUDA"
    if has_dropout(network):
        return "dropout draws for a batch as a whole"
    size = min(recipe.batch_size, images)
    return f"{size} images cannot be shared evenly" if size % distributed.ranks() else None


def why_in_turn(parts: Parts) -> str | None:
    """Why the students of `student.replicas` are trained one after the other, or None if in one program."""
    runtime, student = parts.runtime, parts.student
    if not (runtime.device.type == "cuda" if runtime.vectorize is None else runtime.vectorize):
        return "runtime.vectorize=false" if runtime.vectorize is False else "on a CPU one program is slower"
    if distributed.ranks() > 1:
        return "the ranks share every one of them"
    if has_dropout(student.network):
        return "dropout draws for all of a program at once"
    return "gradients are clipped by the norm of a student's own" if student.recipe.clip is not None else None
