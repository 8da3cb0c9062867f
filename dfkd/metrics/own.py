"""Metrics of a user's own: the section `metrics` of a configuration.

metrics:
  ece:                                # its key
    label: calibration error
    lower_is_better: true
    compute: {_target_: my_metric.CalibrationError, bins: 15}
"""

import contextlib
from collections.abc import Callable, Iterable

from dfkd.metrics.exam import Exam
from dfkd.metrics.metric import Metric
from dfkd.metrics.table import TABLE, columns

# What else stands beside the values of metrics in a result or in the store.
TAKEN = {*(metric.key for metric in TABLE), "round", "val_iacc", "peak_memory_mb", "ranks", "replicas"}
WHEN = ("of_teacher", "each_round")  # options that say when a metric is computed


def own_metric(
    key: str,
    label: str,
    compute: Callable[[Exam], float | None] | None = None,
    form: str = "number",
    lower_is_better: bool = False,
    of_teacher: bool = True,
    each_round: bool = True,
) -> Metric:
    """A row for the table; see `Metric` for the options.

    Raises:
        ValueError: the key is no name or taken, the label is taken, or there is no such form.
    """
    if not key.isidentifier() or key in TAKEN:
        raise ValueError(f"'{key}' cannot be the key of a metric: choose another name, of letters, digits and _")
    if not isinstance(label, str) or not label or label in columns():
        raise ValueError(f"label '{label}' is empty, or the head of another column; choose another")
    heads = ((f"teacher {label}", f"teacher.{key}"),) if of_teacher else ()
    heads = (*heads, (label, f"student.{key}"))
    return Metric(key, label, form, lower_is_better, compute, of_teacher, each_round, columns=heads)


def own_metrics(configs: Iterable[dict]) -> tuple[Metric, ...]:
    """The metrics that configurations add to the table, each key once, without what computes them: a report runs no
    code that a file names, and leaves out what it cannot read."""
    found: dict[str, Metric] = {}
    for config in configs:
        section = config.get("metrics")
        for key, node in section.items() if isinstance(section, dict) else ():
            with contextlib.suppress(TypeError, ValueError, AttributeError):
                words = {name: value for name, value in node.items() if name != "compute"}
                found.setdefault(key, own_metric(key, **words))
    return tuple(found.values())


def own_content(config: dict, when: str | None = None) -> dict:
    """What of a user's metrics belongs into a key: {'metrics': ...}, or nothing where there are none. What a metric is
    called changes no value.

    Args:
        when: of WHEN: only those that are computed then. If None, all of them, and when they are computed.
    """
    section = config.get("metrics") or {}
    counting = {
        key: {"compute": node.get("compute")} | ({} if when else {name: node.get(name, True) for name in WHEN})
        for key, node in (section.items() if isinstance(section, dict) else ())
        if isinstance(node, dict) and node.get(when, True)
    }
    return {"metrics": counting} if counting else {}
