"""Renders a scene over a background: materials, lights, shadows, antialiasing."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fasthamer.data.synthetic import skin
from fasthamer.data.synthetic.background import random_colour
from fasthamer.data.synthetic.scene import ARM, HAND, OBJECT, SLEEVE, WEAR, Scene
from fasthamer.data.synthetic.shading import (
    SKIN_WRAP,
    Light,
    ambient_occlusion,
    decode,
    diffuse,
    dot,
    encode,
    highlight,
    shadow,
)
from fasthamer.data.synthetic.textures import texture_bank
from fasthamer.data.synthetic.viewpoints import Crop
from fasthamer.render.raster import FragmentMap, interpolate, rasterize


class HandTexture(NamedTuple):
    """Textures and texture coordinates of a hand model; V vertices."""

    maps: skin.SkinMaps
    coordinates: NDArray[np.float32]  # (V, 2) pixels of the skin maps
    dorsal: NDArray[np.float32]  # (V,) 0 on the palm's side, 1 on the back of the hand


def paint(
    rng: np.random.Generator, scene: Scene, crop: Crop, texture: HandTexture, background: NDArray
) -> NDArray[np.uint8]:
    """(S, S, 3) RGB: the scene rendered over a background (S, S, 3)."""
    size = background.shape[0]
    centre = (float(crop.centre[0]), float(crop.centre[1]))
    fragments = rasterize(scene.vertices, scene.faces, (crop.focal, crop.focal), centre, size, size, cull_back=True)
    covered = fragments.face >= 0
    if not covered.any():
        return background

    kind = scene.material[fragments.face[covered]]
    attributes = np.concatenate([scene.normals, _coordinates(scene, texture)], axis=1)  # (V, 6)
    values = interpolate(fragments, scene.faces, attributes)
    normals = _normalised(values[:, :3])
    points = _points(fragments, covered, crop)
    albedo, crease, gloss = _albedo(rng, values[:, 3:], kind, texture)

    weight = covered.astype(np.float32)
    scale = size / 256
    occlusion = ambient_occlusion(fragments.depth, weight, 4 * scale)
    occlusion *= ambient_occlusion(fragments.depth, weight, 14 * scale, 0.03)
    open_sky = occlusion[covered] * (1 - 0.45 * crease)
    linear = _light(rng, scene, points, normals, albedo, gloss, open_sky, kind, covered)

    image = _cast_shadow(rng, background, covered)
    image[covered] = encode(linear)
    return _antialiased(image, fragments)


def _coordinates(scene: Scene, texture: HandTexture) -> NDArray[np.float32]:
    """(V, 3) texture coordinates in pixels and `dorsal`; the arm's follow on from the hand's."""
    coordinates = np.empty((len(scene.vertices), 3), np.float32)
    coordinates[:, :2] = scene.surface / (skin.MILLIMETRES * 1e-3)
    coordinates[:, 2] = 1.0
    n = len(texture.dorsal)
    coordinates[:n, :2], coordinates[:n, 2] = texture.coordinates, texture.dorsal
    return coordinates


def _points(fragments: FragmentMap, covered: NDArray, crop: Crop) -> NDArray[np.float32]:
    """(N, 3) the visible surface points, metres in the camera's frame."""
    y, x = np.nonzero(covered)
    z = fragments.depth[covered]
    return np.stack([(x - crop.centre[0]) / crop.focal * z, (y - crop.centre[1]) / crop.focal * z, z], 1).astype(
        np.float32
    )


def _albedo(
    rng: np.random.Generator, coordinates: NDArray, kind: NDArray, texture: HandTexture
) -> tuple[NDArray, NDArray, NDArray]:
    """Linear albedo (N, 3), crease 0..1 (N,) and gloss (N,) of every visible point."""
    u, v, dorsal = coordinates.T
    crease, gloss = np.zeros(len(u), np.float32), np.zeros(len(u), np.float32)
    srgb = np.empty((len(u), 3), np.float32)
    tone = skin.skin_tone(rng)
    back_colour = skin.skin_colour(rng, tone)
    palm_colour = back_colour + (skin.PALM - back_colour) * rng.uniform(0.08, 0.25 + 0.3 * tone)
    strength = rng.uniform((0.15, 0.3, 0.3), (0.9, 1.3, 1.2)).astype(np.float32)  # of creases, redness, mottling

    hand = kind == HAND
    variant = rng.integers(skin.VARIANTS)
    sampled = [_sample(side[variant], u[hand], v[hand]) for side in (texture.maps.palm, texture.maps.back)]
    blend = np.clip((dorsal[hand] - 0.3) / 0.4, 0, 1)[:, None]
    layers = sampled[0] * (1 - blend) + sampled[1] * blend  # (N, 4) 0..255
    base = palm_colour * (1 - blend) + back_colour * blend
    srgb[hand] = _skin(base, layers, strength, rng.uniform(0, 1))
    crease[hand] = layers[:, skin.CREASE] * (strength[skin.CREASE] / 255)
    nails = layers[:, skin.NAILS] / 255

    bank = texture_bank()
    grain = bank[2][(v[~hand].astype(int) % 512), (u[~hand].astype(int) % 512)].astype(np.float32)
    woven = bank[rng.integers(len(bank))][(v[~hand].astype(int) % 512), (u[~hand].astype(int) % 512)]
    other = np.empty((len(grain), 3), np.float32)
    rest = kind[~hand]
    for number in (ARM, SLEEVE, WEAR, OBJECT):
        here = rest == number
        if number == ARM:
            other[here] = back_colour * (1 + (grain[here, None] - 128) / 128 * 0.06)
            continue
        amount = rng.beta(1, 3)
        other[here] = np.array(random_colour(rng)) * (1 + (woven[here, None].astype(np.float32) - 128) / 128 * amount)
    srgb[~hand] = other

    gloss[hand] = 0.25 + 0.75 * nails
    gloss[kind == ARM] = 0.25
    gloss[kind >= WEAR] = rng.uniform(0, 1.5)
    return decode(srgb), crease, gloss


def _skin(base: NDArray, layers: NDArray, strength: NDArray, polish: float) -> NDArray[np.float32]:
    """sRGB of skin (N, 3) from its tone (N, 3) and the four map channels (N, 4)."""
    red = (layers[:, skin.REDNESS, None] - 128) / 128 * strength[skin.REDNESS]
    grain = (layers[:, skin.MOTTLE, None] - 128) / 128 * strength[skin.MOTTLE]
    dark = layers[:, skin.CREASE, None] / 255 * strength[skin.CREASE]
    out = base * (1 + red * np.array([0.06, -0.16, -0.14], np.float32)) * (1 + 0.22 * grain)
    out *= 1 - dark * np.array([0.28, 0.42, 0.42], np.float32)
    nail = layers[:, skin.NAILS, None] / 255 * (0.45 + 0.4 * polish)
    return out * (1 - nail) + (0.45 * base + 0.55 * skin.NAIL) * nail


def _light(
    rng: np.random.Generator,
    scene: Scene,
    points: NDArray,
    normals: NDArray,
    albedo: NDArray,
    gloss: NDArray,
    occlusion: NDArray,
    kind: NDArray,
    covered: NDArray,
) -> NDArray[np.float32]:
    """(N, 3) linear light that reaches the camera: from the sky, a key light with shadows, sometimes a second light."""
    to_camera = _normalised(-points)
    sky, ground = (_random_white(rng, rng.uniform(0.25, 0.75)) for _ in range(2))
    up = np.array([rng.normal(0, 0.3), -1, rng.normal(0, 0.3)], np.float32)
    upness = 0.5 + 0.5 * (normals @ (up / np.linalg.norm(up)))[:, None]
    arriving = (ground * 0.6 * (1 - upness) + sky * upness) * occlusion[:, None]
    wrap = np.where((kind <= ARM)[:, None], SKIN_WRAP, 0.05).astype(np.float32)
    shine = np.zeros((len(points), 1), np.float32)
    gloss_scale, sharpness = rng.uniform(0.02, 0.22), rng.uniform(8, 40)
    for strength in (rng.uniform(0.3, 1.5), rng.uniform(0.1, 0.7) if rng.random() < 0.4 else 0.0):
        light = Light(_light_direction(rng), _random_white(rng, strength))
        if strength == 0.0:
            continue
        visible = 0.35 + 0.65 * occlusion
        if strength > 0.5:
            depth_of_shadow = rng.uniform(0.3, 0.9)
            unshadowed = shadow(scene.vertices, scene.faces, points + 0.002 * normals, light)
            unshadowed = _blurred(unshadowed, covered, rng.uniform(1, 6))
            visible = visible * (1 - depth_of_shadow * (1 - unshadowed))
        arriving += diffuse(normals, light, visible, wrap)
        shine += (highlight(normals, to_camera, light, sharpness) * gloss * visible * strength)[:, None]
    linear = albedo * arriving + shine * np.float32(gloss_scale)
    return linear * (rng.uniform(0.7, 1.2) * 0.55 / max(0.2, float(arriving.mean()))) ** 0.8


def _blurred(values: NDArray, covered: NDArray, radius: float) -> NDArray[np.float32]:
    """(N,) values of the covered pixels (H, W), blurred within the covered area."""
    side = max(1, int(radius * covered.shape[0] / 256)) * 2 + 1
    image = np.zeros(covered.shape, np.float32)
    image[covered] = values
    weight = cv2.blur(covered.astype(np.float32), (side, side))
    return (cv2.blur(image, (side, side)) / np.maximum(weight, 1e-3))[covered]


def _light_direction(rng: np.random.Generator) -> NDArray[np.float32]:
    """(3,) unit vector towards a light, mostly above and on the camera's side."""
    direction = np.array([rng.normal(0, 0.8), rng.normal(-0.7, 0.6), rng.normal(-0.7, 0.6)])
    return (direction / np.linalg.norm(direction)).astype(np.float32)


def _random_white(rng: np.random.Generator, strength: float) -> NDArray[np.float32]:
    """(3,) white light of a random colour temperature."""
    warmth = rng.normal(0.03, 0.1)
    return (strength * np.array([1 + warmth, 1, 1 - warmth])).astype(np.float32)


def _cast_shadow(rng: np.random.Generator, background: NDArray, covered: NDArray) -> NDArray:
    """The background, with probability 0.35 with a soft shadow of the hand on it."""
    if rng.random() > 0.35:
        return background.copy()
    size = background.shape[0]
    small = cv2.resize(covered.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA)
    shift = rng.normal(0, 5, 2)
    moved = cv2.warpAffine(small, np.array([[1, 0, shift[0]], [0, 1, abs(shift[1])]]), (64, 64))
    soft = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.8, 4)) * rng.uniform(0.2, 0.7)
    gain = cv2.resize(1 - soft, (size, size), interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(background, cv2.merge([gain, gain, gain]), dtype=cv2.CV_8U)


def _antialiased(image: NDArray, fragments: FragmentMap) -> NDArray[np.uint8]:
    """Replaces outlines, where the depth jumps, by a slight blur; changes `image`."""
    depth = np.minimum(fragments.depth, 4.0)
    kernel = np.ones((3, 3), np.uint8)
    edge = (cv2.dilate(depth, kernel) - cv2.erode(depth, kernel)) > 0.006
    blurred = cv2.GaussianBlur(image, (3, 3), 0.9)
    cv2.copyTo(blurred, edge.astype(np.uint8), image)
    return image


def _normalised(vectors: NDArray) -> NDArray:
    return vectors / np.maximum(np.sqrt(dot(vectors, vectors)), 1e-6)[:, None]


def _sample(side: NDArray, u: NDArray, v: NDArray) -> NDArray[np.float32]:
    """Bilinear look-up in a skin map: (N, 4)."""
    rows = 256  # OpenCV limits the width of coordinate maps
    padded = -len(u) % rows
    x, y = (np.pad(c, (0, padded), mode="edge").reshape(-1, rows) for c in (u, v))
    if len(x) == 0:  # the hand is completely occluded
        return np.empty((0, side.shape[2]), np.float32)
    found = cv2.remap(side, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return found.reshape(-1, side.shape[2])[: len(u)].astype(np.float32)
