"""Curves of the ablations: points lie where the axes say, both axes logarithmic; several lines have a legend."""

from __future__ import annotations

from fasthamer.distill.ablation_curves import PANEL, curves
from fasthamer.render.figure import pixels


def row(tokens: int, codes: int, error: float) -> dict:
    curve = [(10.0, 4 * error), (100.0, error)]
    return {"M": tokens, "K": codes, "tokenizer": {"pa_mpvpe_mm": error}, "curve": curve}


ROWS = {"default": row(48, 512, 3.0), "tokens_96": row(96, 512, 2.5), "tokens_24": row(24, 512, 3.5)}


def test_each_panel_has_the_points_of_its_group_in_order():
    tokens, codes, seconds = curves(ROWS | {"codes_128": row(48, 128, 4.0)}).axes
    assert tokens.lines[0].get_xydata().tolist() == [[24, 3.5], [48, 3.0], [96, 2.5]]
    assert codes.lines[0].get_xydata().tolist() == [[128, 4.0], [512, 3.0]]
    assert [label.get_text() for label in codes.get_xticklabels()] == ["128", "512"]
    assert [each.get_xlabel() for each in (tokens, codes, seconds)] == ["tokens M", "codes K", "seconds of training"]
    assert {axes.get_xscale() for axes in (tokens, codes, seconds)} == {"log"}
    assert {axes.get_yscale() for axes in (tokens, codes, seconds)} == {"log"}


def test_several_lines_have_a_legend_and_the_first_lies_on_top():
    seconds = curves(ROWS).axes[-1]
    assert [text.get_text() for text in seconds.get_legend().get_texts()] == ["default", "tokens_24", "tokens_96"]
    heights = [line.get_zorder() for line in seconds.lines]
    assert heights == sorted(heights, reverse=True)


def test_a_single_point_is_drawn_too():
    figure = curves({"default": ROWS["default"]})
    assert figure.axes[-1].get_legend() is None
    image = pixels(figure)
    assert image.shape == (PANEL[1], 3 * PANEL[0], 3) and (image != 255).any()
