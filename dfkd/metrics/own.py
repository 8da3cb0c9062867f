"""User-defined metrics: the section `metrics` of a configuration.

metrics:
  ece:                                # the key
    label: calibration error
    lower_is_better: true
    compute: {_target_: my_metric.CalibrationError, bins: 15}
"""

import contextlib
from collections.abc import Callable, Iterable

from dfkd.metrics.exam import Exam
from dfkd.metrics.metric import Metric
from dfkd.metrics.table import TABLE, columns

# Keys that user-defined metrics may not have, because result files and the store use them.
TAKEN = {*(metric.key for metric in TABLE), "round", "val_iacc", "peak_memory_mb", "ranks", "replicas"}
WHEN = ("of_teacher", "each_round")  # options that decide when a metric is computed


def own_metric(
    key: str,
    label: str,
    compute: Callable[[Exam], float | None] | None = None,
    form: str = "number",
    lower_is_better: bool = False,
    of_teacher: bool = True,
    each_round: bool = True,
    headline: bool = True,
) -> Metric:
    """Create a user-defined row of the table; see `Metric` for the options.

    Raises:
        ValueError: the key is not an identifier or is taken, the label is empty or taken, or form is unknown.
    """
    if not key.isidentifier() or key in TAKEN:
        raise ValueError(f"'{key}' cannot be the key of a metric: choose another name, of letters, digits and _")
    if not isinstance(label, str) or not label or label in columns():
        raise ValueError(f"label '{label}' is empty, or the head of another column; choose another")
    heads = ((f"teacher {label}", f"teacher.{key}"),) if of_teacher else ()
    heads = (*heads, (label, f"student.{key}"))
    return Metric(key, label, form, lower_is_better, compute, of_teacher, each_round, headline, heads)


def own_metrics(configs: Iterable[dict]) -> tuple[Metric, ...]:
    """Return the metrics that configurations add to the table, for a report; the first one of each key.

    They have no `compute`, because a report must not execute code named in a file. Entries that are not valid are left
    out.
    """
    metrics: dict[str, Metric] = {}
    for config in configs:
        section = config.get("metrics")
        for key, node in section.items() if isinstance(section, dict) else ():
            with contextlib.suppress(TypeError, ValueError, AttributeError):
                words = {name: value for name, value in node.items() if name != "compute"}
                metrics.setdefault(key, own_metric(key, **words))
    return tuple(metrics.values())


def own_content(config: dict, when: str | None = None) -> dict:
    """Return the part of the section `metrics` that enters a key: {'metrics': ...}, or {} if it is empty.

    Only options that can change values are included; labels, for example, are not.

    Args:
        when: a name in WHEN: include only metrics for which this option is true. None: include all metrics, with the
            options in WHEN.
    """
    section = config.get("metrics") or {}
    counting = {
        key: {"compute": node.get("compute")} | ({} if when else {name: node.get(name, True) for name in WHEN})
        for key, node in (section.items() if isinstance(section, dict) else ())
        if isinstance(node, dict) and node.get(when, True)
    }
    return {"metrics": counting} if counting else {}
