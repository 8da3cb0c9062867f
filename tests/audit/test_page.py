"""The page of an audit."""

import re

import torch

from dfkd.audit import headline, judge, page
from dfkd.audit.page import shares_by_octave
from dfkd.audit.pictures import bars, grid, heat, picture


def test_the_page_stands_alone_and_says_the_verdict(looks_at):
    verdict = judge(looks_at(True))
    text = page("mine <b>", looks_at(True), verdict)
    assert "mine &lt;b&gt;" in text and "<b>" not in text
    assert headline(verdict) in text and verdict.advice in text and "What was not looked at" in text
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert text.count("<figure>") == 10
    assert text.count("<tr>") == 1 + len(verdict.reasons)


def test_a_grid_has_gaps_and_fills_rows_first():
    sheet = grid(torch.zeros(3, 1, 2, 2), columns=2)
    assert sheet.shape == (1, 5, 5)
    assert sheet[0, 2].eq(1).all() and sheet[0, :2, :2].eq(0).all() and sheet[0, 3:, 3:].eq(1).all()


def test_heat_is_white_at_the_largest_number_and_black_at_zero():
    coloured = heat(torch.tensor([[0.0, 2.0]]))
    assert coloured[:, 0, 0].tolist() == [0, 0, 0] and coloured[:, 0, 1].tolist() == [1, 1, 1]
    assert heat(torch.zeros(2, 2)).eq(0).all()


def test_pictures_of_one_and_of_three_channels():
    for channels in (1, 3):
        assert 'src="data:image/png;base64,' in picture(torch.rand(channels, 4, 4), "what it is")


def test_radii_are_counted_by_octave():
    radii = [0.5 / 255, 1 / 255, 1.9 / 255, 2 / 255, 127 / 255, 128 / 255, 1.0, 0.0005]
    assert shares_by_octave(radii) == [2 / 8, 2 / 8, 1 / 8, 0, 0, 0, 0, 1 / 8, 2 / 8]
    assert shares_by_octave([]) == [0.0] * 9


def test_bars_are_as_high_as_their_shares():
    text = bars({"own": [1.0, 0.0], "others": [0.5, 0.5]}, ["a", "b"], "caption")
    assert [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', text)] == [120, 0, 60, 60]
