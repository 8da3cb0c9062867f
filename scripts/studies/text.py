"""Study 14: a text classifier, distilled from synthetic embeddings."""

from dfkd.report.runs import Run
from studies.boundary import method
from studies.pages import Page, by, compare, intervals

FLOOR = "noise_images"


def page(cells: list[Run]) -> Page:
    """Return every kind of embeddings against random ones, and their means."""
    groups = by(cells, method)
    text = compare(groups, ["student ID", "agreement", "teacher ID"], FLOOR, ["student ID", "agreement"])
    words = "student accuracy on test texts, %"
    return Page(text, intervals(groups, "student ID", words, teacher="teacher ID", limits=None))
