"""What a file holds that is given as an image and cannot be read as one: its kind and what to do with it."""

from __future__ import annotations

_FRAME = "save a frame of it as PNG or JPEG (ffmpeg -i FILE -frames:v 1 frame.png)"
_CONVERT = "convert it to JPEG or PNG"
_KINDS = (  # first bytes, kind, what to do
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video", _FRAME),
    (b"\x00\x00\x01\xba", "an MPEG video", _FRAME),
    (b"\x00\x00\x01\xb3", "an MPEG video", _FRAME),
    (b"0&\xb2u\x8ef\xcf\x11", "a Windows Media video", _FRAME),
    (b"FLV\x01", "a Flash video", _FRAME),
    (b"OggS", "an Ogg video or sound file", _FRAME),
    (b"\xff\x0a", "a JPEG XL image", _CONVERT),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image", _CONVERT),
    (b"v/1\x01", "an OpenEXR image", _CONVERT),
    (b"#?RADIANCE", "a Radiance HDR image", _CONVERT),
    (b"%PDF", "a PDF document", "export the page as PNG"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"\x93NUMPY", "a NumPy array", "save it as PNG"),
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the file with: git lfs pull"),
)
_IMAGES = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF", b"\x00\x00\x00\x0cjP  ")
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def foreign_kind(content: bytes) -> tuple[str, str] | None:
    """What a file is that is no image, or an image that needs another reader; None if nothing is recognised.

    Args:
        content: the file, or its first 512 bytes.

    Returns:
        its kind with an article, and what to do.
    """
    for beginning, kind, remedy in _KINDS:
        if content.startswith(beginning):
            return kind, remedy
    if content[4:8] == b"ftyp":
        return _media_file(content)
    if content[:4] == b"RIFF" and content[8:12] == b"AVI ":
        return "an AVI video", _FRAME
    if content[4:8] in (b"moov", b"mdat", b"wide", b"free"):
        return "a QuickTime video", _FRAME
    if content[:1] == b"G" and content[188:189] == content[376:377] == b"G":
        return "an MPEG transport stream", _FRAME
    text = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page", "download the image itself"
    if text.startswith((b"<svg", b"<?xml")):
        return "an SVG or another XML file", _CONVERT
    return None


def is_common_image(content: bytes) -> bool:
    """Whether a file begins like an image of a common format; one that cannot be read is damaged or of a rare kind."""
    return content.startswith(_IMAGES)


def _media_file(content: bytes) -> tuple[str, str]:
    """HEIC, AVIF or a video, by the brands of an ISO media file."""
    end = min(int.from_bytes(content[:4], "big"), 256)
    brands = {content[8:12], *(content[at : at + 4] for at in range(16, end, 4))}
    if brands & {b"avif", b"avis"}:
        return "an AVIF image", _CONVERT
    if brands & _HEIC:
        return "a HEIC image", f"{_CONVERT}; iPhones save JPEG under Settings, Camera, Formats, Most Compatible"
    return "a QuickTime video" if content[8:12] == b"qt  " else "an MP4 video", _FRAME
