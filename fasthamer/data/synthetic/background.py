"""Procedural backgrounds for synthetic images: walls, interiors, shelves, desks, leaves, people."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fasthamer.data.synthetic.skin import skin_colour
from fasthamer.data.synthetic.textures import texture_patch

Image = NDArray  # (S, S, 3) uint8, RGB


def random_background(rng: np.random.Generator, size: int) -> Image:
    """(size, size, 3) RGB."""
    image = _textured_plane(rng, size, size)
    kind = rng.random()
    if kind < 0.35:
        _interior(rng, image)
    elif kind < 0.55:
        _shelves(rng, image)
    elif kind < 0.8:
        _clutter(rng, image, int(rng.integers(3, 40)))
    if kind < 0.8 and rng.random() < 0.15:
        image = _at_half_scale(image)
    if rng.random() < 0.3:
        image = _warped(rng, image)
    if rng.random() < 0.5:
        image = _textured_overlay(rng, image)
    if rng.random() < 0.35:
        _person(rng, image)
    if rng.random() < 0.4:
        _clutter(rng, image, int(rng.integers(1, 6)))
    if rng.random() < 0.75:
        sigma = size / 256 * float(np.exp(rng.uniform(-0.7, 2.0)))
        image = _blur(image, sigma)
    if rng.random() < 0.6:
        image = _light_falloff(rng, image)
    return image


def random_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """A random RGB colour: mostly of low saturation, sometimes vivid."""
    value = rng.beta(1.3, 1.1) * 245 + 5
    saturation = rng.beta(1.2, 4.5) if rng.random() < 0.8 else rng.uniform(0.3, 0.9)
    hue = rng.choice((0.4, 0.7, 1.0, 3.5)) + rng.normal(0, 0.4) if rng.random() < 0.6 else rng.random() * 6
    channels = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    red, green, blue = (value * (1 - saturation * (1 - channels))).astype(int).tolist()
    return red, green, blue


def _textured_plane(rng: np.random.Generator, height: int, width: int) -> Image:
    """A textured surface (height, width, 3) in two random colours."""
    first, second = np.array(random_colour(rng), np.float32), np.array(random_colour(rng), np.float32)
    if rng.random() < 0.7:
        second = first * rng.uniform(0.5, 1.3)
    contrast = rng.beta(1, 2)
    table = np.linspace(-0.5, 0.5, 256, dtype=np.float32)[:, None] * contrast + rng.uniform(0.2, 0.8)
    lookup = np.clip(first + (second - first) * table, 0, 255).astype(np.uint8)  # (256, 3)
    if rng.random() < 0.5:  # some texture also where both colours are similar
        lookup = np.clip(lookup * (1 + (table - table.mean()) * 0.5), 0, 255).astype(np.uint8)
    grey = texture_patch(rng, height, width)
    return cv2.LUT(cv2.merge([grey, grey, grey]), lookup[:, None, :])


def _interior(rng: np.random.Generator, image: Image) -> None:
    """Draws a floor or table below a wall, and large quadrilaterals for frames and furniture."""
    size = image.shape[0]
    if rng.random() < 0.7:
        horizon = rng.uniform(0.3, 0.9, 2) * size
        corners = np.array([[0, horizon[0]], [size, horizon[1]], [size, size], [0, size]])
        _fill_textured(rng, image, corners)
    for _ in range(rng.integers(2, 9)):
        centre, extent = rng.uniform(0, size, 2), size * rng.uniform(0.08, 0.6, 2)
        box = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * extent / 2
        box = box + centre + rng.normal(0, 0.03 * size, (4, 2)) * (rng.random() < 0.5)
        if rng.random() < 0.4:
            _fill_textured(rng, image, box)
        else:
            cv2.fillConvexPoly(image, box.astype(np.int32), random_colour(rng), cv2.LINE_AA)
        if rng.random() < 0.5:
            thickness = int(rng.integers(1, max(2, size // 24)))
            cv2.polylines(image, [box.astype(np.int32)], True, random_colour(rng), thickness, cv2.LINE_AA)


def _shelves(rng: np.random.Generator, image: Image) -> None:
    """Draws rows of similar objects, such as cans or books on shelves, windows, keys of a keyboard."""
    size = image.shape[0]
    kinds = [random_colour(rng) for _ in range(rng.integers(1, 5))]
    for row in np.arange(rng.uniform(-0.1, 0.2), 1, rng.uniform(0.12, 0.35)) * size:
        height, step = rng.uniform(0.06, 0.25) * size, rng.uniform(0.03, 0.12) * size
        x = rng.uniform(-0.3, 0.4) * size
        for _ in range(rng.integers(3, 16)):
            top = row + rng.uniform(0, 0.3) * height
            tone = np.array(kinds[rng.integers(len(kinds))]) * rng.uniform(0.7, 1.2)
            body = np.clip(tone, 0, 255).astype(int).tolist()
            left, right = int(x), int(x + step * rng.uniform(0.6, 0.98))
            cv2.rectangle(image, (left, int(top)), (right, int(row + height)), body, -1)
            band = int(top + height * 0.4)
            light = np.clip(tone * 1.5 + 30, 0, 255).astype(int).tolist()
            cv2.rectangle(image, (left, int(top)), ((2 * left + right) // 3, band), light, -1)
            x += step
        edge = int(row + height)
        cv2.rectangle(image, (0, edge), (size, edge + max(1, size // 50)), random_colour(rng), -1)
    for _ in range(rng.integers(0, 4)):
        x = int(rng.uniform(0, size))
        cv2.rectangle(image, (x, 0), (x + int(rng.uniform(0.01, 0.2) * size), size), random_colour(rng), -1)


def _clutter(rng: np.random.Generator, image: Image, count: int) -> None:
    """Draws ellipses, polygons and lines, many small and few large."""
    size = image.shape[0]
    for _ in range(count):
        x, y = (int(v) for v in rng.uniform(0, size, 2))
        radius = size * 0.02 * (1 - rng.random()) ** -0.8
        radius = min(radius, size * 0.4)
        shape = rng.integers(4)
        if shape == 0:
            axes = (int(radius) + 1, int(radius * rng.uniform(0.3, 1)) + 1)
            cv2.ellipse(image, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, random_colour(rng), -1, cv2.LINE_AA)
        elif shape == 1:
            end = (int(x + rng.normal(0, 0.4) * size), int(y + rng.normal(0, 0.4) * size))
            cv2.line(image, (x, y), end, random_colour(rng), 1 + int(radius / 4), cv2.LINE_AA)
        elif shape == 2:
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            outline = np.stack([np.cos(angles), np.sin(angles)], 1) * radius * 1.3 + (x, y)
            cv2.fillConvexPoly(image, outline.astype(np.int32), random_colour(rng), cv2.LINE_AA)
        else:
            box = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * radius * rng.uniform(0.4, 1.6, 2) + (x, y)
            _fill_textured(rng, image, box)


def _person(rng: np.random.Generator, image: Image) -> None:
    """Draws a person behind the hand: shirt, neck, head, hair; sometimes a bare arm."""
    size = image.shape[0]
    skin = tuple((skin_colour(rng) * rng.uniform(0.6, 1.05)).astype(int).tolist())
    x, y, scale = rng.uniform(-0.1, 1.1) * size, rng.uniform(-0.2, 0.7) * size, rng.uniform(0.12, 0.5) * size
    shoulder, hem = y + 1.4 * scale, max(size, y + 5 * scale)
    torso = np.array([[-0.5, 0], [0.5, 0], [1.5, 0.4], [1.8, 9], [-1.8, 9], [-1.5, 0.4]]) * scale + (x, shoulder)
    torso[:, 1] = np.minimum(torso[:, 1], hem)
    _fill_textured(rng, image, torso)
    dark = tuple(int(0.75 * c) for c in skin)
    cv2.rectangle(image, _int_pair(x - 0.4 * scale, y), _int_pair(x + 0.4 * scale, shoulder + 0.2 * scale), dark, -1)
    hair = tuple((np.array((90, 70, 50)) * rng.uniform(0.1, 1.6)).astype(int).tolist())
    axes = _int_pair(0.85 * scale, 1.15 * scale)
    cv2.ellipse(image, _int_pair(x, y - 0.25 * scale), axes, 0, 0, 360, hair, -1, cv2.LINE_AA)
    turn = rng.uniform(-0.25, 0.25) * scale
    cv2.ellipse(image, _int_pair(x + turn, y), _int_pair(0.7 * scale, scale), 0, 0, 360, skin, -1, cv2.LINE_AA)
    for side in (-0.3, 0.3):
        cv2.ellipse(
            image,
            _int_pair(x + turn + side * scale, y - 0.1 * scale),
            _int_pair(0.1 * scale + 1, 0.05 * scale + 1),
            0,
            0,
            360,
            hair,
            -1,
        )
    mouth = (int(skin[0] * 0.85), int(skin[1] * 0.6), int(skin[2] * 0.6))
    cv2.ellipse(
        image, _int_pair(x + turn, y + 0.5 * scale), _int_pair(0.25 * scale + 1, 0.07 * scale + 1), 0, 0, 360, mouth, -1
    )
    if rng.random() < 0.5:
        elbow = rng.uniform(-0.2, 1.2, 2) * size
        cv2.line(image, _int_pair(x, shoulder + scale), _int_pair(*elbow), skin, max(1, int(0.5 * scale)), cv2.LINE_AA)


def _fill_textured(rng: np.random.Generator, image: Image, outline: NDArray) -> None:
    """Fills a convex outline (N, 2) with a textured surface."""
    size = image.shape[0]
    x0, y0 = np.clip(np.floor(outline.min(0)), 0, size).astype(int)
    x1, y1 = np.clip(np.ceil(outline.max(0)) + 1, 0, size).astype(int)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillConvexPoly(mask, (outline - (x0, y0)).astype(np.int32), 255, cv2.LINE_8)
    cv2.copyTo(_textured_plane(rng, y1 - y0, x1 - x0), mask, image[y0:y1, x0:x1])


def _at_half_scale(image: Image) -> Image:
    """The image at half its scale, filled up by reflection: finer detail."""
    small = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    right, below = image.shape[1] - small.shape[1], image.shape[0] - small.shape[0]
    return cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_REFLECT)


def _warped(rng: np.random.Generator, image: Image) -> Image:
    """A smooth random deformation: straight lines become wavy or tilted."""
    size = image.shape[0]
    shift = (rng.normal(0, 0.05, (4, 4, 2)) * size).astype(np.float32)
    field = cv2.resize(shift, (size, size), interpolation=cv2.INTER_CUBIC)
    along = np.arange(size, dtype=np.float32)
    return cv2.remap(
        image, field[..., 0] + along, field[..., 1] + along[:, None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )


def _textured_overlay(rng: np.random.Generator, image: Image) -> Image:
    """Multiplies the image by one texture, as of grain, dirt or shadows of leaves."""
    grey = texture_patch(rng, *image.shape[:2])
    amount = rng.uniform(0.1, 0.6)
    gain = cv2.LUT(grey, (1 + (np.arange(256, dtype=np.float32) / 128 - 1) * amount).astype(np.float32))
    return cv2.multiply(image, cv2.merge([gain, gain, gain]), dtype=cv2.CV_8U)


def _blur(image: Image, sigma: float) -> Image:
    """Gaussian blur; wide blurs are computed at a smaller size."""
    size = image.shape[0]
    factor = 4 if sigma > 5 else 2 if sigma > 2 else 1
    if factor == 1:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    small = cv2.resize(image, (size // factor, size // factor), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)


def _light_falloff(rng: np.random.Generator, image: Image) -> Image:
    """A smooth change of brightness over the image, as near a lamp or a window."""
    coarse = (rng.uniform(0.75, 1.1) + rng.uniform(-0.3, 0.3, (3, 3))).astype(np.float32)
    gain = cv2.resize(coarse, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return cv2.multiply(image, cv2.merge([gain, gain, gain]), dtype=cv2.CV_8U)


def _int_pair(x: float, y: float) -> tuple[int, int]:
    return int(x), int(y)
