"""A panel of curves: points lie where the axes say, logarithmically; ticks are round."""

from __future__ import annotations

import numpy as np
import pytest

from fasthamer.render.chart import COLOURS, PANEL, Curve, panel, round_numbers


def columns_and_rows(image, index):
    """Where a colour is, soft edges included."""
    rows, columns = np.nonzero(np.abs(image.astype(int) - COLOURS[index]).max(2) < 20)
    return columns, rows


def test_a_curve_rises_and_turns_where_its_points_do():
    image = panel([Curve("", [10, 100, 1000], [1, 10, 1])], "error", "codes")
    assert image.shape == (PANEL[1], PANEL[0], 3)
    columns, rows = columns_and_rows(image, 0)
    peak = columns[rows == rows.min()].mean()
    assert peak == pytest.approx((columns.min() + columns.max()) / 2, abs=2)  # 100 is the middle of 10 and 1000
    assert np.ptp(rows) > PANEL[1] / 2


def test_several_curves_have_a_legend_and_the_first_lies_on_top():
    image = panel([Curve("a", [1, 2], [1, 2]), Curve("b", [1, 2], [1, 2])], "error", "seconds")
    (columns, rows), (other_columns, _) = columns_and_rows(image, 0), columns_and_rows(image, 1)
    assert len(columns) > 500 > len(other_columns) > 20  # b is left in the legend only
    assert other_columns.min() > 0.9 * PANEL[0] and rows.max() > PANEL[1] / 2


def test_a_single_point_is_drawn_too():
    columns, _ = columns_and_rows(panel([Curve("", [48], [3.0])], "error", "tokens", [48]), 0)
    assert 3 <= np.ptp(columns) <= 8


def test_round_numbers_are_some_five_within_the_range():
    assert round_numbers(2.6, 3.5) == [2.6, 2.8, 3.0, 3.2, 3.4]
    assert round_numbers(0.0, 100.0) == [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
