"""Metrics: what is measured, as one table that result files, tables, curves, the console and the page use.

Imports neither torch nor anything of dfkd. May be imported by dfkd.config and later rooms.
"""

from dfkd.metrics.computed import percent
from dfkd.metrics.exam import Answers, Exam
from dfkd.metrics.metric import FORMS, Metric
from dfkd.metrics.own import own_content, own_metric, own_metrics
from dfkd.metrics.table import COMPUTED, TABLE, columns

__all__ = [
    "COMPUTED",
    "FORMS",
    "TABLE",
    "Answers",
    "Exam",
    "Metric",
    "columns",
    "own_content",
    "own_metric",
    "own_metrics",
    "percent",
]
