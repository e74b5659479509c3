"""What charts are drawn with, and a panel of curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fasthamer.render.overlay import INK, PAPER, Colour

GRID, FAINT = (224, 224, 220), (150, 152, 158)
COLOURS = ((122, 167, 224), (240, 163, 108), (126, 190, 130), (196, 138, 206), (224, 196, 92), (150, 150, 150))
PANEL = (480, 400)  # width, height in pixels
_SMOOTH = 3  # drawn this much larger and averaged
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 44, 22, 48  # pixels around a panel's plot
_LADDER = (1, 1.5, 2, 3, 5, 7)  # of each decade, the values that may have a line

Spot = tuple[float, float]  # x, y in pixels
Box = tuple[float, float, float, float]


class Page:
    """A sheet to draw on, in pixels of the finished image.

    Args:
        size: width, height.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.image = Image.new("RGB", (size[0] * _SMOOTH, size[1] * _SMOOTH), PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def line(self, start: Spot, end: Spot, colour: Colour = GRID, width: int = 1) -> None:
        self.pen.line([_large(start), _large(end)], colour, width * _SMOOTH)

    def ellipse(self, box: Box, fill: Colour | None, outline: Colour) -> None:
        self.pen.ellipse(_large(box), fill=fill, outline=outline, width=_SMOOTH)

    def text(self, at: Spot, text: str, size: int, anchor: str, colour: Colour = INK) -> None:
        """
        Args:
            anchor: Pillow's, such as `mm`, middle of both.
        """
        self.pen.text((at[0] * _SMOOTH, at[1] * _SMOOTH), text, colour, _font(size), anchor=anchor)

    def finish(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        return np.asarray(self.image.resize(self.size, Image.Resampling.LANCZOS)).copy()


def text_width(text: str, size: int) -> float:
    """Pixels."""
    return _font(size).getlength(text) / _SMOOTH


def round_numbers(low: float, high: float) -> list[float]:
    """Some 5 round numbers within a range."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    return [round(step * count, 6) for count in range(math.ceil(low / step), math.floor(high / step) + 1)]


class Curve(NamedTuple):
    """A line through measured points."""

    name: str
    xs: Sequence[float]  # above 0
    ys: Sequence[float]  # above 0


def panel(curves: Sequence[Curve], title: str, across: str, ticks: Sequence[float] = ()) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: curves over two logarithmic axes, a dot for each point; several curves get a legend.

    Args:
        curves: one of each of `COLOURS` at most; the first is drawn on top.
        title: what the upward axis shows.
        across: what the other one shows.
        ticks: its lines; none = round numbers.
    """
    page = Page(PANEL)
    x, y = _axis([value for curve in curves for value in curve.xs]), _axis([v for curve in curves for v in curve.ys])

    def spot(value: float, height: float) -> Spot:
        width, tall = PANEL[0] - _LEFT - _RIGHT, PANEL[1] - _TOP - _BOTTOM
        return _LEFT + x.share(value) * width, _TOP + (1 - y.share(height)) * tall

    for value in ticks or x.ticks():
        page.line(spot(value, y.low), spot(value, y.high))
        page.text((spot(value, y.low)[0], PANEL[1] - _BOTTOM + 12), f"{value:g}", 12, "mm")
    for value in y.ticks():
        page.line(spot(x.low, value), spot(x.high, value))
        page.text((_LEFT - 8, spot(x.low, value)[1]), f"{value:g}", 12, "rm")
    coloured = list(zip(curves, COLOURS[: len(curves)], strict=True))
    for curve, colour in reversed(coloured):
        _draw(page, [spot(*each) for each in zip(curve.xs, curve.ys, strict=True)], colour)
    for row, (curve, colour) in enumerate(coloured if len(curves) > 1 else []):
        right, middle = PANEL[0] - _RIGHT - 6, _TOP + 14 + 17 * row
        page.line((right - 18, middle), (right, middle), colour, 3)
        page.text((right - 24, middle), curve.name, 12, "rm")
    page.text((PANEL[0] / 2, 20), title, 14, "mm")
    page.text((PANEL[0] / 2, PANEL[1] - 16), across, 13, "mm")
    return page.finish()


class _Axis(NamedTuple):
    low: float
    high: float

    def share(self, value: float) -> float:
        """How far along the axis a value lies, by its logarithm."""
        return math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = (step * 10.0**decade for decade in decades for step in _LADDER)
        found = [round(value, 9) for value in values if self.low <= value <= self.high]
        return found if len(found) > 2 else round_numbers(self.low, self.high)


def _axis(values: Sequence[float]) -> _Axis:
    """A tenth of the data's range (in logarithms) on both sides, and not less than a tenth of a value."""
    margin = max((max(values) / min(values)) ** 0.1, 1.1)
    return _Axis(min(values) / margin, max(values) * margin)


def _draw(page: Page, spots: Sequence[Spot], colour: Colour) -> None:
    for start, end in itertools.pairwise(spots):
        page.line(start, end, colour, 2)
    for x, y in spots:
        page.ellipse((x - 4, y - 4, x + 4, y + 4), colour, PAPER)


def _large(numbers: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(value * _SMOOTH for value in numbers)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size * _SMOOTH)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
