"""Procedural grey textures: clouds, cloth, wood, bricks, tiles, leaves; the same in every process."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = 512  # pixels, both sides; the textures are periodic


@lru_cache(maxsize=1)
def texture_bank() -> NDArray[np.uint8]:
    """(N, SIZE, SIZE), mean near 128."""
    rng = np.random.default_rng(20240607)
    clouds = [_cloud(rng, slope) for slope in (0.6, 0.9, 1.1, 1.3, 1.6, 2.0)]
    streaks = [_cloud(rng, 1.2, stretch) for stretch in (4.0, 10.0)]
    made = clouds + streaks + [_wood(rng), _wood(rng), _cloth(4), _cloth(9), _bricks(rng), _tiles(rng)]
    made += [_leaves(rng, count) for count in (300, 900)]
    return np.stack(made)


@lru_cache(maxsize=1)
def sensor_noise() -> NDArray[np.int16]:
    """(1024, 1024) normal noise with standard deviation 100; users take random windows and scale them."""
    return np.random.default_rng(7).normal(0, 100, (1024, 1024)).astype(np.int16)


def texture_patch(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width) random window of a random texture at a random scale, sometimes flipped."""
    bank = texture_bank()
    texture = bank[rng.integers(len(bank))]
    zoom = np.exp(rng.uniform(-0.7, 1.1))
    side_y, side_x = (max(4, min(SIZE, round(n / zoom))) for n in (height, width))
    y, x = rng.integers(SIZE - side_y + 1), rng.integers(SIZE - side_x + 1)
    patch = texture[y : y + side_y, x : x + side_x]
    if rng.random() < 0.5:
        patch = patch[::-1]
    return cv2.resize(patch, (width, height), interpolation=cv2.INTER_LINEAR)


def _cloud(rng: np.random.Generator, slope: float, stretch: float = 1.0) -> NDArray[np.uint8]:
    """Noise with amplitude proportional to frequency ** -slope."""
    fy, fx = np.meshgrid(np.fft.fftfreq(SIZE), np.fft.rfftfreq(SIZE), indexing="ij")
    frequency = np.sqrt((fy * SIZE) ** 2 + (fx * SIZE * stretch) ** 2)
    frequency[0, 0] = np.inf
    spectrum = frequency**-slope * np.exp(2j * np.pi * rng.random(frequency.shape))
    return _grey(np.fft.irfft2(spectrum, (SIZE, SIZE)))


def _wood(rng: np.random.Generator) -> NDArray[np.uint8]:
    grain = _cloud(rng, 1.4, 12.0).astype(np.float32) / 255
    y = np.arange(SIZE, dtype=np.float32)[:, None] / SIZE
    rings = np.sin(2 * np.pi * (grain * rng.uniform(3, 7) + 2 * y))
    return _grey(rings + 1.5 * grain)


def _cloth(period: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:SIZE, :SIZE] * (2 * np.pi * (SIZE // period) / SIZE)
    return _grey(np.sin(x) * (np.sin(y) > 0) + np.sin(y + np.pi / 2) * (np.sin(x) > 0))


def _bricks(rng: np.random.Generator) -> NDArray[np.uint8]:
    image = np.full((SIZE, SIZE), 90, np.uint8)
    for row in range(16):
        for column in range(-1, 8):
            x, y = column * 64 + 32 * (row % 2), row * 32
            cv2.rectangle(image, (x + 2, y + 2), (x + 61, y + 29), int(rng.integers(110, 180)), -1)
    return image


def _tiles(rng: np.random.Generator) -> NDArray[np.uint8]:
    image = np.full((SIZE, SIZE), 170, np.uint8)
    for row in range(8):
        for column in range(8):
            x, y = column * 64, row * 64
            cv2.rectangle(image, (x + 1, y + 1), (x + 61, y + 61), int(rng.integers(110, 150)), -1)
    return image


def _leaves(rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """Overlapping ellipses, the dead-leaves model of natural images."""
    image = np.full((SIZE, SIZE), 60, np.uint8)
    for _ in range(count):
        centre = tuple(int(c) for c in rng.integers(0, SIZE, 2))
        long = rng.uniform(8, 60) * (300 / count) ** 0.5
        axes = (int(long) + 1, int(long * rng.uniform(0.2, 0.6)) + 1)
        shade = int(rng.integers(20, 235))
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, shade, -1, cv2.LINE_AA)
    return image


def _grey(values: NDArray) -> NDArray[np.uint8]:
    return np.clip((values - values.mean()) / values.std() * 48 + 128, 0, 255).astype(np.uint8)
