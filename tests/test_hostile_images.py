"""Images made to fill the memory: one clear error."""

from __future__ import annotations

import struct
import zlib

import pytest
from encoded_images import BLOCKS, encoded, raw_png, tiff
from refusals import refused

from fasthamer.data.file_checks import incomplete
from fasthamer.files.images import LARGEST, read_image, read_image_size


def png_claiming(width, height):
    return raw_png(width, height, 8, 2, [bytes(30)])


def jpeg_claiming(width, height):
    content = encoded(BLOCKS, "JPEG")
    at = content.index(b"\xff\xc0")
    return content[: at + 5] + struct.pack(">HH", height, width) + content[at + 9 :]


def tiff_claiming(width, height):
    return tiff(width, height, 8, 1, bytes(300))


@pytest.mark.parametrize(
    "content",
    [
        png_claiming(100_000, 100_000),
        png_claiming(2**31 - 1, 2**31 - 1),
        jpeg_claiming(65_000, 65_000),
        jpeg_claiming(30_000, 30_000),
        tiff_claiming(100_000, 100_000),
        raw_png(60_000, 60_000, 1, 0, []),
    ],
    ids=["png", "larger png", "jpeg", "smaller jpeg", "tiff", "one bit"],
)
def test_an_image_that_claims_a_hundred_thousand_pixels_a_side_is_refused(tmp_path, content):
    path = tmp_path / "huge.img"
    path.write_bytes(content)
    refused(read_image, path, "too large|damaged")
    incomplete(path)  # of a JPEG or a PNG it looks at the ends only
    if content.startswith(b"\xff"):
        assert min(read_image_size(path)) >= 30_000  # a header is read whatever it claims
    else:
        refused(read_image_size, path, "too large|damaged")


def test_a_png_of_zeros_in_a_few_bytes_is_refused(tmp_path):
    """15,000 x 15,000 pixels, 675 MB, of 650 kB of file."""
    rows = zlib.compressobj(9)
    body = rows.compress(bytes(15 * (1 + 3 * 15_000))) + rows.flush(zlib.Z_FULL_FLUSH)
    body += body[2:] * 999 + rows.flush()
    head = struct.pack(">IIBBBBB", 15_000, 15_000, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path / "zeros.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    assert path.stat().st_size < 700_000
    refused(read_image, path, "too large")


def test_the_largest_cameras_are_below_the_limit():
    assert LARGEST > 16_384 * 12_288  # 200 megapixels


def test_compressed_text_in_a_png_is_not_unpacked_without_bound(tmp_path):
    path = tmp_path / "text.png"
    text = b"Comment\0\0" + zlib.compress(bytes(20 << 20), 9)
    path.write_bytes(raw_png(4, 1, 8, 2, [bytes(12)], (b"zTXt", text)))
    refused(read_image, path, "damaged")
