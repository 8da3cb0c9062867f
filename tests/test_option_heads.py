"""Every option opens with its paper, what it needs, and whether it looks at the student."""

import re

import pytest

from dfkd.main import CONF

OPTIONS = [
    (group, file.stem)
    for group in ("synthesizer", "teacher", "defense", "criterion")
    for file in sorted((CONF / group).glob("*.yaml"))
]
NO_PAPER = re.compile(r"^Control|no paper's")


def head(group: str, option: str) -> str:
    """The comment an option file opens with, in one line."""
    lines = (CONF / group / f"{option}.yaml").read_text().splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.removeprefix("#").strip() for line in lines[:end])


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_opens_with_its_paper_and_its_needs(group, option):
    said = head(group, option)
    paper = re.search(r"\([^()]*\b20\d\d\b[^()]*(arXiv \d{4}\.\d{4,5}|openreview \w+)", said)
    assert paper or NO_PAPER.search(said) or group == "criterion", "no (authors, venue and year, arXiv id)"
    assert re.search(r"\bneeds\b", said, re.IGNORECASE), "what it needs"
    if group != "teacher":
        assert re.search(r"looks? at (no student|the student)|the student it looks at", said), "looks at a student?"
