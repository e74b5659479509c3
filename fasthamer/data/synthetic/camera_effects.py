"""Camera effects: blur, exposure, colour casts, noise, compression."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fasthamer.data.synthetic.textures import sensor_noise

Image = NDArray  # (S, S, 3) uint8, RGB


def apply_camera_effects(rng: np.random.Generator, image: Image) -> Image:
    """Degrades a clean rendering (S, S, 3) RGB to the quality of a phone or webcam image."""
    image = _blur(rng, image)
    image = cv2.LUT(image, _tone_curves(rng))
    if rng.random() < 0.02:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.7:
        image = _noise(rng, image)
    if rng.random() < 0.4:
        quality = int(rng.integers(35, 95))
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return image


def _blur(rng: np.random.Generator, image: Image) -> Image:
    """One of: motion blur, defocus, low resolution, slight blur, nothing."""
    size, kind = image.shape[0], rng.random()
    if kind < 0.12:
        length, angle = size / 256 * rng.uniform(2, 11), rng.uniform(0, np.pi)
        return cv2.filter2D(image, -1, _motion_kernel(length, angle))
    if kind < 0.24:
        return cv2.GaussianBlur(image, (0, 0), size / 256 * rng.uniform(0.8, 2.4))
    if kind < 0.42:
        small = max(16, int(size * rng.uniform(0.3, 0.8)))
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    if kind < 0.75:
        return cv2.GaussianBlur(image, (3, 3), rng.uniform(0.3, 0.8))
    return image


def _motion_kernel(length: float, angle: float) -> NDArray[np.float32]:
    """Convolution kernel of a straight motion; length in pixels, angle in radians."""
    half = int(np.ceil(length / 2))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    start, end = ((half + sign * reach) * 16 for sign in (-1, 1))
    cv2.line(kernel, start.astype(int).tolist(), end.astype(int).tolist(), 255, 1, cv2.LINE_AA, shift=4)
    return kernel.astype(np.float32) / kernel.sum()


def _tone_curves(rng: np.random.Generator) -> NDArray[np.uint8]:
    """(256, 1, 3) look-up table per channel for exposure, contrast, gamma, white balance and haze."""
    x = np.linspace(0, 1, 256)[:, None]
    warmth, tint = rng.normal(0, 0.055), rng.normal(0, 0.02)
    gain = np.exp(rng.normal(0, 0.16)) * np.array([1 + warmth, 1 + tint, 1 - warmth])
    level = np.clip(x * gain, 0, 1) ** np.exp(rng.normal(0, 0.14))
    s_curve = rng.uniform(-0.15, 0.5)
    level = level + s_curve * (level * level * (3 - 2 * level) - level)
    haze = rng.uniform(0, 0.12) * (rng.random() < 0.3)
    return np.clip(255 * (level * (1 - haze) + haze), 0, 255).astype(np.uint8)[:, None, :]


def _noise(rng: np.random.Generator, image: Image) -> Image:
    """Adds sensor noise, sometimes blurred as by a denoiser."""
    size, bank = image.shape[0], sensor_noise()
    strength = float(np.exp(rng.uniform(np.log(0.8), np.log(11.0)))) / 100
    pieces = []
    for _ in range(3):
        y, x = rng.integers(bank.shape[0] - size + 1), rng.integers(bank.shape[1] - size + 1)
        pieces.append(bank[y : y + size, x : x + size])
    noise = cv2.merge(pieces)
    if rng.random() < 0.4:
        noise = cv2.blur(noise, (2, 2))
    return cv2.addWeighted(image, 1.0, noise, strength, 0.0, dtype=cv2.CV_8U)
