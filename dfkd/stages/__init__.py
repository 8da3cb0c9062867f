"""The stages of a run, one file each; the pipeline that makes them; the objects that they work with.

May be imported by dfkd.run and later rooms.
"""

from dfkd.stages.audit import AuditStage
from dfkd.stages.judgement import JudgementStage
from dfkd.stages.leakage import LeakageStage
from dfkd.stages.pool import PoolStage
from dfkd.stages.premise import PremiseStage
from dfkd.stages.split import SplitStage
from dfkd.stages.stage import Log, Run, Stage
from dfkd.stages.student import StudentStage
from dfkd.stages.teacher import TeacherStage

__all__ = [
    "AuditStage",
    "JudgementStage",
    "LeakageStage",
    "Log",
    "PoolStage",
    "PremiseStage",
    "Run",
    "SplitStage",
    "Stage",
    "StudentStage",
    "TeacherStage",
]
