"""Ways to get a teacher."""

from dfkd.teachers.backdoor import Backdoor
from dfkd.teachers.base import TrainedTeacher
from dfkd.teachers.checkpoint import Checkpoint
from dfkd.teachers.ntl import NTL
from dfkd.teachers.supervised import Supervised

__all__ = ["NTL", "Backdoor", "Checkpoint", "Supervised", "TrainedTeacher"]
