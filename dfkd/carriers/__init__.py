"""Carriers: the smallest changes, the same for every image, that carry images of other classes to one class.

May be imported by dfkd.audit and later rooms.
"""

from dfkd.carriers.changes import Smallest, smallest_marks, smallest_shifts
from dfkd.carriers.filters import Filters, weakest_filters
from dfkd.carriers.masks import Masks, smallest_masks
from dfkd.carriers.search import Search

__all__ = [
    "Filters",
    "Masks",
    "Search",
    "Smallest",
    "smallest_marks",
    "smallest_masks",
    "smallest_shifts",
    "weakest_filters",
]
