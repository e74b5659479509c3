"""Image files: EXIF orientation, pixel types, damaged and foreign files."""

import re

import cv2
import numpy as np
import pytest
from encoded_images import BLOCKS, MARKED, RNG, brand, encoded, raw_png, tiff, written
from PIL import Image, ImageOps, features

from fasthamer.data.file_checks import incomplete
from fasthamer.files.image_forms import image_array
from fasthamer.files.images import decode_image, read_image, read_image_size, read_orientation
from fasthamer.runtime.calibration import image_crops


@pytest.mark.parametrize("form", MARKED)
@pytest.mark.parametrize("mark", range(1, 9))
def test_every_orientation_is_applied_as_viewers_apply_it(tmp_path, form, mark):
    path = written(tmp_path / "a", BLOCKS, form, mark)
    with Image.open(path) as opened:
        truth = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    found = read_image(path)
    assert found.shape == truth.shape == ((96, 64, 3) if mark >= 5 else (64, 96, 3))
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found.astype(int), truth, atol=3)
    assert read_image_size(path) == found.shape[1::-1]
    if form == "JPEG":
        np.testing.assert_allclose(found[..., ::-1].astype(int), cv2.imread(str(path)), atol=3)
    if form != "TIFF":  # Pillow itself applies the orientation of TIFF files
        assert read_orientation(path) == mark
        stored = read_image(path, upright=False)
        np.testing.assert_allclose(stored.astype(int), BLOCKS, atol=12)
        assert read_image_size(path, upright=False) == (96, 64)
    with Image.open(path) as opened:
        np.testing.assert_allclose(image_array(opened).astype(int), truth, atol=3)


def test_the_recorded_size_decides_about_quarter_turns():
    for mark in range(1, 9):
        content = encoded(BLOCKS, "PNG", mark)
        turned, stored = decode_image(content, ""), decode_image(content, "", upright=False)
        np.testing.assert_array_equal(decode_image(content, "", upright=(96, 64)), stored if mark >= 5 else turned)
        np.testing.assert_array_equal(decode_image(content, "", upright=(64, 96)), turned)
        np.testing.assert_array_equal(decode_image(content, "", upright=(5, 5)), turned)


@pytest.mark.parametrize("mark", [0, 9, 300])
def test_a_mark_that_is_no_orientation_and_damaged_metadata_change_nothing(mark):
    content = encoded(BLOCKS, "JPEG", mark)
    stored = decode_image(content, "", upright=False)
    np.testing.assert_array_equal(decode_image(content, ""), stored)
    at = content.index(b"Exif\x00\x00") + 6
    damaged = content[:at] + b"XX" + content[at + 2 :]
    np.testing.assert_array_equal(decode_image(damaged, ""), stored)


WIDE = np.array([[0, 255, 256, 0x7FFF, 0x8000, 0xFFFF]], np.uint16)
UPPER = [0, 0, 1, 127, 128, 255]


def test_grey_of_16_bits_keeps_its_upper_8():
    for content in (encoded(WIDE, "PNG"), encoded(WIDE, "TIFF"), b"P5 6 1 65535\n" + WIDE.astype(">u2").tobytes()):
        found = decode_image(content, "")
        assert found.shape == (1, 6, 3) and (found == found[..., :1]).all()
        np.testing.assert_allclose(found[0, :, 0].astype(int), UPPER, atol=1)
    assert decode_image(encoded(WIDE, "PNG"), "")[0, :, 0].tolist() == UPPER


def test_colours_of_16_bits_keep_their_upper_8(tmp_path):
    rgb = np.stack((WIDE, WIDE[:, ::-1], WIDE // 2), -1)
    for suffix in ("png", "tiff"):
        cv2.imwrite(str(tmp_path / f"a.{suffix}"), rgb[..., ::-1])
        np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), rgb >> 8)
    opaque = np.concatenate((rgb, np.full_like(rgb[..., :1], 0xFFFF)), -1)
    cv2.imwrite(str(tmp_path / "a.png"), opaque[..., [2, 1, 0, 3]])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb >> 8)


def test_tiff_of_12_bits_and_with_white_as_0():
    twelve = tiff(2, 1, 12, 1, bytes([0xFF, 0xF8, 0x00]))  # 4095 and 2048
    assert decode_image(twelve, "")[0, :, 0].tolist() == [255, 128]
    for photometric, truth in ((1, UPPER), (0, [255 - value for value in UPPER])):
        assert decode_image(tiff(6, 1, 16, photometric, WIDE.tobytes()), "")[0, :, 0].tolist() == truth
    for photometric, truth in ((1, [0, 9, 255]), (0, [255, 246, 0])):
        assert decode_image(tiff(3, 1, 8, photometric, bytes([0, 9, 255])), "")[0, :, 0].tolist() == truth


def test_grey_one_bit_and_palette_are_shown_as_viewers_show_them():
    grey = BLOCKS[..., 0]
    for form in ("PNG", "TIFF", "WEBP"):
        if form != "WEBP":
            np.testing.assert_array_equal(decode_image(encoded(grey, form), ""), np.stack([grey] * 3, -1))
    np.testing.assert_allclose(decode_image(encoded(grey, "JPEG"), "")[..., 1].astype(int), grey, atol=12)
    bits = Image.fromarray(grey > 127)
    assert set(np.unique(decode_image(encoded(bits, "PNG"), ""))) == {0, 255}
    np.testing.assert_array_equal(decode_image(encoded(bits, "PNG"), "")[..., 0], (grey > 127) * 255)
    two_bits = raw_png(4, 1, 2, 0, [bytes([0b00011011])])
    assert decode_image(two_bits, "")[0, :, 0].tolist() == [0, 85, 170, 255]
    palette = Image.fromarray(BLOCKS).quantize(256)  # 24 colours: exact
    for form in ("PNG", "GIF", "TIFF"):
        np.testing.assert_array_equal(decode_image(encoded(palette, form), ""), BLOCKS)


def test_cmyk_follows_the_formula(tmp_path):
    inks = RNG.integers(0, 255, (4, 6, 4), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    truth = (255.0 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
    np.testing.assert_allclose(decode_image(encoded(Image.fromarray(inks, "CMYK"), "TIFF"), ""), truth, atol=1)
    content = encoded(Image.fromarray(inks, "CMYK"), "JPEG")
    np.testing.assert_allclose(decode_image(content, ""), truth, atol=6)
    np.testing.assert_allclose(image_array(Image.fromarray(inks, "CMYK")), truth, atol=1)


def test_transparent_pixels_are_over_black():
    alpha = np.zeros((64, 96, 1), np.uint8)
    alpha[:, 32:64], alpha[:, 64:] = 128, 255
    truth = BLOCKS.astype(int) * alpha / 255
    rgba = np.concatenate((BLOCKS, alpha), -1)
    for form in ("PNG", "TIFF"):
        np.testing.assert_allclose(decode_image(encoded(rgba, form), ""), truth, atol=0.51)
    with_grey = np.concatenate((BLOCKS[..., :1], alpha), -1)
    found = decode_image(encoded(Image.fromarray(with_grey, "LA"), "PNG"), "")
    np.testing.assert_allclose(found, truth[..., [0, 0, 0]], atol=0.51)
    for mode in ("La", "RGBa", "PA"):
        found = image_array(Image.fromarray(rgba).convert("LA").convert(mode)) if mode == "La" else None
        found = image_array(Image.fromarray(rgba).convert(mode)) if mode == "RGBa" else found
        if found is not None:
            assert (found[:, :32] == 0).all() and (found[:, 64:].std() > 1)
    opaque = np.concatenate((BLOCKS, np.full_like(alpha, 255)), -1)
    np.testing.assert_array_equal(decode_image(encoded(opaque, "PNG"), ""), BLOCKS)


def test_a_transparent_colour_is_black():
    indices = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    indices.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for form in ("PNG", "GIF"):
        found = decode_image(encoded(indices, form, transparency=1), "")
        assert found.tolist() == [[[10, 20, 30], [0, 0, 0], [70, 80, 90]]]
    grey = raw_png(3, 1, 8, 0, [bytes([5, 6, 7])], (b"tRNS", b"\0\6"))
    assert decode_image(grey, "")[0, :, 0].tolist() == [5, 0, 7]
    rgb = raw_png(2, 1, 8, 2, [bytes([1, 2, 3, 4, 5, 6])], (b"tRNS", b"\0\1\0\2\0\3"))
    assert decode_image(rgb, "").tolist() == [[[0, 0, 0], [4, 5, 6]]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded(np.ones((4, 4), np.float32), "TIFF"), "32-bit float pixels"),
        (encoded(Image.fromarray(np.full((4, 4), 7, np.int32)), "TIFF"), "32-bit or signed integer pixels"),
        (encoded(Image.new("LAB", (4, 4)), "TIFF"), "CIE Lab colours"),
        (raw_png(2, 1, 16, 0, [b"\0\1\0\2"], (b"tRNS", b"\0\1")), "16-bit pixels with a transparent grey"),
        (raw_png(4, 1, 2, 0, [b"\x1b"], (b"tRNS", b"\0\1")), "a transparent colour in other than 8 bits"),
        (tiff(2, 2, 8, 1, bytes(4), t254=1), "a camera's raw pixels behind a preview"),
        (tiff(2, 2, 8, 1, bytes(4), t50706=0x0401), "a camera's raw pixels behind a preview"),
    ],
)
def test_pixels_without_8_bit_values_are_refused(content, message):
    with pytest.raises(ValueError, match=rf"^a\.tif has {message}.*(save|convert) it (as|to) [^\n]*$"):
        decode_image(content, "a.tif")


def test_float_maps_are_refused():
    content = b"Pf\n2 2\n-1.0\n" + np.ones(4, "<f4").tobytes()
    with pytest.raises(ValueError, match=r"32-bit float pixels|no image of a known format"):  # Pillow 12 and 10
        decode_image(content, "a.pfm")


# ---------------------------------------------------------------------------------------- damaged and foreign files


FOREIGN = [
    (brand(b"isom", b"isom", b"iso2", b"avc1", b"mp41"), "an MP4 video", "save a frame"),
    (brand(b"mp42", b"isom"), "an MP4 video", "ffmpeg"),
    (brand(b"qt  "), "a QuickTime video", "save a frame"),
    (brand(b"heic", b"mif1", b"heic"), "a HEIC image", "convert it to JPEG or PNG"),
    (brand(b"mif1", b"heic", b"mif1"), "a HEIC image", "convert it"),
    (brand(b"avif", b"avif", b"mif1", b"miaf"), "an AVIF image", "convert it"),
    (brand(b"mif1", b"mif1", b"avif"), "an AVIF image", "convert it"),
    (b"RIFF\0\0\0\0AVI LIST" + bytes(99), "an AVI video", "save a frame"),
    (b"\x1aE\xdf\xa3" + bytes(99), "a Matroska or WebM video", "save a frame"),
    (b"\0\0\1\xb3\x14\0\xf0\x23" + bytes(99), "an MPEG video", "save a frame"),
    ((b"G" + bytes(187)) * 3, "an MPEG transport stream", "save a frame"),
    (b"\xff\x0a" + bytes(99), "a JPEG XL image", "convert it"),
    (b"%PDF-1.7\n", "a PDF document", "export"),
    (b"PK\x03\x04" + bytes(99), "a ZIP archive", "unpack it"),
    (b"\n<!DOCTYPE html><html>quota exceeded</html>", "a web page", "download the image itself"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG or another XML file", "convert it"),
    (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"),
]


@pytest.mark.parametrize(("content", "kind", "remedy"), FOREIGN)
def test_a_file_of_another_kind_is_named_with_what_to_do(tmp_path, content, kind, remedy):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (read_image, read_image_size, image_array):
        with pytest.raises(
            ValueError, match=f"a.jpg is {kind}, which cannot be read as an image; .*{remedy}"
        ) as caught:
            read(path)
        assert "damaged" not in str(caught.value) and "\n" not in str(caught.value)
    found = incomplete(path)
    assert found is not None and (kind in found or found == "is no image")


def test_real_videos_are_named(tmp_path):
    for suffix, code, kind in (("mp4", "mp4v", "an MP4 video"), ("avi", "MJPG", "an AVI video")):
        path = tmp_path / f"a.{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, (96, 64))
        if not writer.isOpened():
            pytest.skip(f"this OpenCV writes no {suffix}")
        for _ in range(3):
            writer.write(BLOCKS)
        writer.release()
        with pytest.raises(ValueError, match=kind):
            read_image(path)


def test_folders_and_files_without_permission_are_named(tmp_path, monkeypatch):
    for read in (read_image, read_image_size):
        with pytest.raises(ValueError, match=r"is a folder: give an image file"):
            read(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"no image .*none\.png"):
            read(tmp_path / "none.png")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.png").touch()
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(ValueError, match=r"a\.png cannot be read: Permission denied$"):
        read_image(tmp_path / "a.png")
    monkeypatch.undo()
    path = written(tmp_path / "a.png", BLOCKS, "PNG")
    with pytest.raises(FileNotFoundError, match=r"a\.png is a file; give its folder"):
        image_crops(path, 16)


@pytest.mark.parametrize("form", [*MARKED, "GIF", "BMP", "JPEG2000", "PPM"])
def test_damaged_files_are_one_line_without_an_address(tmp_path, form):
    whole, rng = encoded(BLOCKS, form), np.random.default_rng(1)
    path = tmp_path / "a.img"
    for trial in range(60):
        content = bytearray(whole[: len(whole) * (trial % 20) // 20] if trial < 20 else whole)
        for at in rng.integers(0, max(len(content), 1), 0 if trial < 20 else 1 + trial % 7):
            content[at] = rng.integers(256)
        path.write_bytes(content)
        for read in (read_image, read_image_size):
            try:
                read(path)
            except ValueError as error:
                text = str(error)
                assert "\n" not in text and "0x" not in text and "BytesIO" not in text and "a.img" in text
                assert re.search("download it again|use JPEG or PNG|as JPEG|JPEG or PNG|8-bit PNG", text), text
    for cut in (len(whole) // 2, len(whole) - 60) if form in ("JPEG", "PNG", "WEBP") else ():
        with pytest.raises(ValueError, match=r"^x: damaged image"):
            decode_image(whole[:cut], "x")


def test_a_jpeg_cut_behind_its_preview_is_damaged(tmp_path):
    """The preview in the header has an end mark of its own."""
    preview = encoded(np.ascontiguousarray(BLOCKS[::8, ::8]), "JPEG", subsampling=2)
    noise = RNG.integers(0, 255, (64, 96, 3), dtype=np.uint8)
    whole = encoded(noise, "JPEG", exif=b"Exif\0\0" + preview, quality=90)
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    assert incomplete(path) is None
    np.testing.assert_array_equal(read_image(path).shape, noise.shape)
    path.write_bytes(whole[:3500])
    assert preview[-2:] in whole[:3500] and b"\xff\xda" in whole[:3500]
    with pytest.raises(ValueError, match="damaged image"):
        read_image(path)
    assert incomplete(path) == "is cut short"


def test_a_jpeg_with_a_video_behind_it_is_whole(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(BLOCKS, "JPEG", 6) + bytes(9000))
    assert incomplete(path) is None
    assert read_image(path).shape == (96, 64, 3)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read_where_pillow_can(tmp_path):
    path = written(tmp_path / "a.avif", BLOCKS, "AVIF", 6)
    assert read_image(path).shape == (96, 64, 3) and read_image_size(path) == (64, 96)
    assert incomplete(path) is None
