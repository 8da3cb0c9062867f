"""The objects that one run works with: teacher, student, synthesizer, defense and the others."""

from dataclasses import dataclass, field
from typing import Any

from dfkd.defenses import Defense
from dfkd.distill import Student
from dfkd.machine.runtime import Runtime
from dfkd.metrics import COMPUTED, Metric
from dfkd.scenarios import Scenario
from dfkd.synthesizers import Synthesizer
from dfkd.teachers.base import TeacherSource
from dfkd.tracker import Tracker


@dataclass
class Components:
    """The objects of one run, checked against each other by `dfkd.stages.prepare`.

    Attributes:
        teacher: how the teacher is obtained, not the teacher itself; `teacher.network` is untrained, or has the weights
            of a checkpoint.
        stages: the stages of the run (`dfkd.stages.stage.Stage`), in order.
        metrics: the metrics that are computed for teacher and student.
        warnings: warnings for the user before anything is computed.
    """

    runtime: Runtime
    scenario: Scenario
    teacher: TeacherSource
    student: Student
    synthesizer: Synthesizer
    defense: Defense
    tracker: Tracker
    stages: list[Any] = field(default_factory=list)
    metrics: tuple[Metric, ...] = COMPUTED
    warnings: list[str] = field(default_factory=list)
