"""Teacher sources: training methods, with and without a trap, and checkpoints made elsewhere.

May be imported by dfkd.stages and later rooms.
"""

from dfkd.teachers.backdoor import Backdoor
from dfkd.teachers.base import TrainedTeacher
from dfkd.teachers.checkpoint import Checkpoint
from dfkd.teachers.clean_twin import CleanTwin
from dfkd.teachers.cupi import CUPI
from dfkd.teachers.cuti import CUTI
from dfkd.teachers.hntl import HNTL, Disentanglement
from dfkd.teachers.incremental import Incremental
from dfkd.teachers.ntl import NTL
from dfkd.teachers.sophon import SOPHON
from dfkd.teachers.supervised import Supervised

__all__ = [
    "CUPI",
    "CUTI",
    "HNTL",
    "NTL",
    "SOPHON",
    "Backdoor",
    "Checkpoint",
    "CleanTwin",
    "Disentanglement",
    "Incremental",
    "Supervised",
    "TrainedTeacher",
]
