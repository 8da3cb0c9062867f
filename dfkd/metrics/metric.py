"""One row of the table of metrics."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from dfkd.metrics.exam import Exam

# How a value is written: in percent, as a share of 1, as a count, in seconds, or any other number.
FORMS = {"percent": ".1f", "share": ".2f", "count": ",.0f", "seconds": ".0f", "number": ".4g"}


@dataclass(frozen=True)
class Metric:
    """Something that is measured of a student, of a teacher, or of a whole run.

    Attributes:
        key: under which its value stands in result.json, below `student` and `teacher`, and as `val/KEY` in
            metrics.jsonl.
        label: what it is called on the console, in curves and on the page.
        form: how a value is written, a key of FORMS.
        lower_is_better: whether a smaller value is a better student.
        compute: gives the value of an `Exam`, or None where it does not apply, and changes neither the models nor
            torch's random numbers. None for what a stage counts by itself.
        of_teacher: whether it is computed for the teacher, too, and shown beside the student's.
        each_round: whether it is computed in every validation on the way, too, and not only in the end.
        headline: whether the last line on the console and the training curves show it.
        columns: of a table: (head, path in result.json) each.
        head: of its column in the table of teachers; the label if empty.

    Raises:
        ValueError: there is no such form.
    """

    key: str
    label: str
    form: str = "percent"
    lower_is_better: bool = False
    compute: Callable[[Exam], float | None] | None = None
    of_teacher: bool = True
    each_round: bool = True
    headline: bool = True
    columns: tuple[tuple[str, str], ...] = ()
    head: str = ""

    def __post_init__(self):
        if self.form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {self.form!r}")

    @property
    def about(self) -> str:
        """The label, with the unit and the order that one has to know to compare two values."""
        unit, order = " (%)" * (self.form == "percent"), ", lower is better" * self.lower_is_better
        return f"{self.label}{unit}{order}"

    def written(self, value: float) -> str:
        """A value in the metric's form."""
        return format(value, FORMS[self.form])

    def of(self, exam: Exam) -> float | None:
        """The value of an exam; None where it does not apply, or is NaN or infinite.

        Raises:
            ValueError: what it computes is no number.
        """
        value = self.compute(exam)
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"metrics.{self.key} must compute a number or None, got {value!r}") from error
        return number if math.isfinite(number) else None
