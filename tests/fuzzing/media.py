"""The readers of images, videos and settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from encoded_images import BLOCKS, encoded, raw_png, tiff
from fuzzing.sandbox import Target
from PIL import Image

from fasthamer.config import load_config
from fasthamer.data.file_checks import incomplete, may_be_marked, shown_size
from fasthamer.files.images import read_equivalent_focal, read_image, read_image_size, read_orientation

SMALL = BLOCKS[::4, ::4].copy()  # (16, 24, 3)
MASK = Image.fromarray(SMALL).convert("L")


def _write_jpegs(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0xA405] = 28
    for name, options in {
        "plain": {},
        "marked": {"exif": exif},
        "progressive": {"progressive": True, "quality": 60},
        "preview": {"mark": 3, "icc_profile": b"x" * 300, "comment": b"a comment"},
    }.items():
        (folder / f"{name}.jpg").write_bytes(encoded(SMALL, "JPEG", **options))
    (folder / "cmyk.jpg").write_bytes(encoded(Image.fromarray(SMALL).convert("CMYK"), "JPEG"))
    (folder / "grey.jpg").write_bytes(encoded(MASK, "JPEG", mark=8))


def _write_pngs(folder: Path) -> None:
    rgba = Image.fromarray(SMALL)
    rgba.putalpha(MASK)
    wide = np.arange(16 * 24 * 3, dtype=">u2").reshape(16, 24 * 3) * 50
    files = {
        "rgb": encoded(SMALL, "PNG", mark=6),
        "rgba": encoded(rgba, "PNG"),
        "palette": encoded(Image.fromarray(SMALL).quantize(16), "PNG", transparency=3),
        "one_bit": encoded(MASK.convert("1"), "PNG"),
        "grey_16": encoded(Image.fromarray(wide[:, :24].astype(np.uint16)), "PNG"),
        "rgb_16": raw_png(24, 16, 16, 2, [row.tobytes() for row in wide]),
        "hidden": raw_png(24, 16, 8, 2, [row.tobytes() for row in SMALL], (b"tRNS", bytes(6))),
    }
    for name, content in files.items():
        (folder / f"{name}.png").write_bytes(content)


def _write_tiffs(folder: Path) -> None:
    image = Image.fromarray(SMALL)
    for kind in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        (folder / f"{kind}.tif").write_bytes(encoded(image, "TIFF", mark=6, compression=kind))
    (folder / "grey_16.tif").write_bytes(tiff(24, 16, 16, 1, bytes(2 * 24 * 16)))
    (folder / "white_0.tif").write_bytes(tiff(24, 16, 8, 0, bytes(24 * 16)))


def _write_others(folder: Path) -> None:
    image = Image.fromarray(SMALL)
    for form in ("WEBP", "GIF", "BMP", "PPM", "TGA", "ICO", "PCX", "JPEG2000", "DDS", "SGI"):
        (folder / f"image.{form.lower()}").write_bytes(encoded(image, form))


def _read_image(folder: Path, path: Path) -> None:
    """Everything that is asked of an image; what the header gives must not fail where the pixels do not."""
    read_equivalent_focal(path)
    incomplete(path)
    may_be_marked(path)
    pixels = read_image(path)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise AssertionError(f"an image of {pixels.shape} {pixels.dtype}")
    read_orientation(path)
    shown_size(path)
    width, height = read_image_size(path)
    if (height, width) != pixels.shape[:2]:
        raise ValueError(f"{path}: the header's size is not the image's")


def _write_videos(folder: Path) -> None:
    from miniatures_video import write_clip

    frames = [np.full((48, 64, 3), 40 * number, np.uint8) for number in range(4)]
    write_clip(folder / "clip.mp4", frames, rotation=90)
    write_clip(folder / "clip.mkv", frames)
    write_clip(folder / "clip.avi", frames)


def _read_video(folder: Path, path: Path) -> None:
    from fasthamer.video.reader import VideoReader

    with VideoReader(path) as reader:
        for _ in zip(reader, range(20), strict=False):
            pass


def _write_recipes(folder: Path) -> None:
    shipped = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
    for number, path in enumerate(shipped):
        (folder / f"{number}_{path.name}").write_bytes(path.read_bytes())
    (folder / "rich.yaml").write_text(
        "TRAIN: &train\n  STEPS: 10\n  CLIP: 1.0\nEVAL:\n  BATCH: 8\nDATA:\n  MIX:\n"
        "  - {data: freihand, root: a, weight: 1.0}\n  - {data: coco, root: b, weight: 2e-1}\n"
        "STUDENT: {DECODER: mano}\n"
    )


def _read_recipe(folder: Path, path: Path) -> None:
    if path.name.endswith("mix.yaml"):
        load_config(None, ["DATA.NAME", str(path)])
    else:
        load_config(path)


TARGETS = (
    Target("jpeg", _write_jpegs, _read_image),
    Target("png", _write_pngs, _read_image),
    Target("tiff", _write_tiffs, _read_image),
    Target("other_images", _write_others, _read_image),
    Target("video", _write_videos, _read_video, needs=("av",)),
    Target("recipe", _write_recipes, _read_recipe),
)
