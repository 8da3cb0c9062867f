"""One row of the table of metrics."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from dfkd.metrics.exam import Exam

# Format strings of values: percent, a share in [0, 1], a count, seconds, any other number.
FORMS = {"percent": ".1f", "share": ".2f", "count": ",.0f", "seconds": ".0f", "number": ".4g"}


@dataclass(frozen=True)
class Metric:
    """A property that is measured of a student, of a teacher, or of a whole run.

    Attributes:
        key: key of the value in result.json, below `student` and `teacher`; in metrics.jsonl it is `val/KEY`.
        label: name on the console, in curves and on the page.
        form: format of a value, a key of FORMS.
        lower_is_better: whether a smaller value means a better student.
        compute: Exam -> value, or None if the metric does not apply. It must change neither the models nor torch's
            random state. None if a stage computes the value itself.
        of_teacher: whether it is also computed for the teacher, and shown beside the student's value.
        each_round: whether it is computed in every validation, and not only at the end.
        headline: whether the last line on the console and the training curves show it.
        columns: columns in the tables of a report, each (head, path in result.json).
        head: head of the column in the table of teachers; the label if empty.

    Raises:
        ValueError: form is unknown.
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
        """The label, with '(%)' for percentages and 'lower is better' if it is."""
        unit, order = " (%)" * (self.form == "percent"), ", lower is better" * self.lower_is_better
        return f"{self.label}{unit}{order}"

    def format_value(self, value: float) -> str:
        """Format a value in the metric's form."""
        return format(value, FORMS[self.form])

    def of(self, exam: Exam) -> float | None:
        """Compute the value for an exam; None if the metric does not apply, or the value is NaN or infinite.

        Raises:
            ValueError: `compute` returned something other than a number or None.
        """
        value = self.compute(exam)
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"metrics.{self.key} must compute a number or None, got {value!r}") from error
        return number if math.isfinite(number) else None
