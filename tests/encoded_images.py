"""Image files of every kind, made in code: with EXIF marks, and by their specifications where Pillow writes none."""

import io
import struct

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
BLOCKS = RNG.integers(0, 255, (4, 6, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)  # (64, 96, 3)
MARKED = ("JPEG", "PNG", "WEBP", "TIFF")


def encoded(image, form, mark=None, **options):
    """The content of a file with an EXIF orientation."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if mark is not None:
        exif = Image.Exif()
        exif[0x0112] = mark
        options["exif"] = exif
    if form == "JPEG":
        options = {"quality": 100, "subsampling": 0} | options
    if form == "WEBP":
        options = {"lossless": True} | options
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def written(path, *args, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(*args, **options))
    return path


def raw_png(width, height, bits, colour, rows, *chunks):
    """A PNG by its specification, for kinds that Pillow does not write."""
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = (chunk(b"IHDR", header), *(chunk(*each) for each in chunks), chunk(b"IDAT", body), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(width, height, bits, photometric, data, **tags):
    """An uncompressed grey TIFF by its specification."""
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    fields |= {int(key[1:]): value for key, value in tags.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    data += b"\0" * (len(data) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(fields)) + entries + b"\0\0\0\0"


def brand(major, *others):
    body = major + b"\0\0\0\0" + b"".join(others)
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + bytes(500)
