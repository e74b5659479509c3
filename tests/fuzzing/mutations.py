"""Hostile versions of valid files: bytes, and the structure of JSON, text, zip, tar, PNG, safetensors and pickle."""

from __future__ import annotations

import io
import json
import pickle
import random
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

INTEGERS = (0, 1, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**60, 2**63 - 1, 2**64 - 1)
TEXTS = (
    *("", " ", "x", "left", "\0", "a\0b", "\ud800", "ü", "%s", "{}", "null", "../../x", "/dev/zero"),
    *("NaN", "-1", "1e999", "9" * 400, "0x10", "\u202e", "n" * 300, "[" * 500, "{a: " * 500, "*a", "<<", "!!python/x"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), 10**25, 10**400, 2**63),
    *([], {}, [[]], [None], [[], {}], {"": None}, [0] * 5, [[0.0] * 3] * 21),
)
PICKLED = (
    b"cos\nsystem\n(S'touch canary'\ntR.",
    b"cbuiltins\neval\n(V__import__('os').system('touch canary')\ntR.",
    b"cposix\nsystem\n\x8c\x0ctouch canary\x85R.",
    b"csubprocess\nPopen\n(S'ls'\ntR.",
    pickle.dumps(["x"] * 3, 4)[:-1] + b"cbuiltins\nexec\n(V1\ntR.",
    b"]" * 3000 + b"a" * 2999 + b".",
    b"]q\x00h\x00a.",
    b"\x80\x05\x96\x00\x00\x00\x00\x10\x00\x00\x00.",  # a byte array of 64 GiB
    b"(" * 4000 + b"t" * 4000 + b".",
    b")" + b"2\x86" * 60 + b"}\x940N.",
    b"}(" + b")" + b"2\x86" * 64 + b"Nu.",  # a dictionary's key whose hash takes 2**64 steps
    b"]" + b"q\x00h\x00h\x00\x86" * 40 + b".",
)


_IMPOSSIBLE = (ValueError, KeyError, IndexError, OverflowError, struct.error, zipfile.BadZipFile, tarfile.TarError)


def mutate(rng: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A hostile version of a file.

    Args:
        rng: of all choices.
        content: the valid file.
        others: valid files that parts may be taken from.
    """
    if rng.random() < 0.35:
        return _bytes(rng, content, others)
    for begins, change in _STRUCTURES:
        if begins(content):
            try:
                return change(rng, content, others)
            except _IMPOSSIBLE:
                break
    return _bytes(rng, content, others)


def _bytes(rng: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        data = rng.choice(_BYTE_CHANGES)(rng, data, others)
    return bytes(data)


def _place(rng: random.Random, data: bytearray) -> int:
    """A position, headers and ends more often than the middle."""
    reach = rng.choice((16, 64, 512, 4096, len(data)))
    at = rng.randrange(max(1, min(reach, len(data))))
    return max(0, len(data) - 1 - at) if rng.random() < 0.25 else at


def _flip(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    if data:
        data[_place(rng, data)] ^= 1 << rng.randrange(8)
    return data


def _set(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    if data:
        data[_place(rng, data)] = rng.randrange(256)
    return data


def _number(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    size, at = rng.choice((1, 2, 4, 8)), _place(rng, data)
    value = rng.choice(INTEGERS) % 2 ** (8 * size)
    data[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
    return data


def _cut(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    return data[: _place(rng, data)] if rng.random() < 0.5 else data[_place(rng, data) :]


def _delete(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    at = _place(rng, data)
    del data[at : at + rng.choice((1, 2, 8, 512))]
    return data


def _repeat(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    at, length = _place(rng, data), rng.choice((1, 4, 16, 512))
    data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
    return data


def _insert(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    at = _place(rng, data)
    data[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
    return data


def _splice(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    if others:
        other, at = bytearray(rng.choice(others)), _place(rng, data)
        begin = _place(rng, other)
        data[at:] = other[begin:]
    return data


def _empty(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    return bytearray(rng.choice((b"", b"\0" * 100, b"[]", b"{}", b"null", b"1", b'"x"', b"\xff\xfe", b"[" * 3000)))


_BYTE_CHANGES = (_flip, _set, _set, _number, _number, _cut, _delete, _repeat, _insert, _splice, _empty)


def _value(rng: random.Random) -> Any:
    return rng.choice(TEXTS) if rng.random() < 0.4 else rng.choice(VALUES)


def changed_json(rng: random.Random, root: Any) -> Any:
    """The tree with a few nodes replaced, removed, renamed or repeated."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        node, parent, key = root, None, None
        while isinstance(node, dict | list) and node and (parent is None or rng.random() < 0.8):
            parent = node
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
            node = node[key]
        choice = rng.random()
        if parent is None:
            root = _value(rng)
        elif choice < 0.6:
            parent[key] = _value(rng)
        elif choice < 0.75:
            del parent[key]
        elif choice < 0.85:
            parent[key] = [node] * rng.choice((1, 2, 100))
        elif isinstance(parent, dict):
            parent[rng.choice(TEXTS)] = node
        else:
            parent.insert(key, node)
    return root


def _json(rng: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    root = changed_json(rng, json.loads(content))
    text = json.dumps(root)
    if rng.random() < 0.1:  # nested deeply somewhere
        at, depth = rng.randrange(len(text)), rng.choice((500, 5000, 100_000))
        opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
        text = text[:at] + opening * depth + closing * depth + text[at:]
    return text.encode("utf-8", "surrogatepass")


def _text(rng: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Numbers and names of a text replaced; lines removed, repeated or exchanged."""
    text = content.decode("utf-8")
    for _ in range(rng.choice((1, 1, 2, 5))):
        if rng.random() < 0.6 and (tokens := list(re.finditer(r"[-+.\w]+", text))):
            token = rng.choice(tokens)
            new = str(_value(rng)) if rng.random() < 0.8 else rng.choice(tokens)[0]
            text = text[: token.start()] + new + text[token.end() :]
        else:
            lines = text.splitlines(keepends=True) or [""]
            one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[one : one + rng.randrange(3)] = [lines[other]] * rng.choice((0, 1, 3))
            text = "".join(lines)
    return text.encode("utf-8", "surrogatepass")


def _zip(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """An archive whose members are hostile while its own structure is right, or nearly so."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(each.filename, archive.read(each)) for each in archive.infolist()]
    at = rng.randrange(len(members))
    name, data = members[at]
    choice = rng.random()
    if choice < 0.75:
        members[at] = name, mutate(rng, data, [data for _, data in members])
    elif choice < 0.85:
        members[at] = rng.choice(("../x.npy", "/x", "x" * 300, name + ".npy", "")), data
    elif choice < 0.95:
        del members[at]
    else:
        members.append((name, rng.choice(members)[1]))
    packed = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.15 else zipfile.ZIP_STORED
    with zipfile.ZipFile(packed, "w", method) as archive, _quiet():
        for name, data in members:
            archive.writestr(name.replace("\0", "") or "x", data)
    return packed.getvalue()


def _npy(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    length = struct.unpack("<H", content[8:10])[0]
    header, data = content[10 : 10 + length].decode("latin1"), content[10 + length :]
    choice = rng.random()
    if choice < 0.4:
        shape = rng.choice(
            ("()", "(0,)", "(1,)", "(1000000000000,)", "(2, 3)", "(-1,)", "(9,) * 9", "(1, 2, 3, 4)", "None", "(1e3,)")
        )
        header = re.sub(r"\(.*?\)", lambda _: shape, header)
    elif choice < 0.7:
        kind = rng.choice(
            *([("|O", "<f2", "<U5", "|S9", "<i8", "<c16", "|b1", "<M8[s]", "<f16", "|V8", "x", "<U99999999")],)
        )
        header = re.sub(r"'descr': '[^']*'", lambda _: f"'descr': '{kind}'", header)
    elif choice < 0.8:
        header = _text(rng, header.encode()).decode("latin1")
    else:
        data = _bytes(rng, data, [])
        if rng.random() < 0.5:
            data = rng.choice((b"\xff", b"\x7f", b"\0")) * len(data)
    header = header.rstrip("\n").ljust(length - 1) + "\n"
    raw = header.encode("utf-8", "surrogatepass")
    return content[:8] + struct.pack("<H", len(raw) % 65536) + raw + data


def _safetensors(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    about = header.get("__metadata__", {})
    if about and rng.random() < 0.6:
        key = rng.choice(list(about))
        about[key] = _json(rng, about[key].encode()).decode("utf-8", "replace")
    elif rng.random() < 0.9:
        header = changed_json(rng, header)
    else:
        data = _bytes(rng, data, others)
    raw = json.dumps(header).encode("utf-8", "surrogatepass")
    size = rng.choice((*INTEGERS, 2**60)) if rng.random() < 0.1 else len(raw)
    return (size % 2**64).to_bytes(8, "little") + raw + data


def _tar(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [(each, archive.extractfile(each).read()) for each in archive if each.isfile()]  # type: ignore[union-attr]
    at = rng.randrange(len(members))
    header, data = members[at]
    choice = rng.random()
    if choice < 0.6:
        data = mutate(rng, data, [data for _, data in members])
    elif choice < 0.8:
        header.name = (
            rng.choice((*TEXTS, "../" * 9 + "canary", "x.jpg", "n" * 250 + ".data.pyd")).replace("\0", "") or "a"
        )
    else:
        header.type = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, b"S", b"g", b"?"))
        header.linkname, data = "/etc/passwd", b""
    header.size = len(data)
    members[at] = header, data
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as archive:
        for header, data in members:
            archive.addfile(header, io.BytesIO(data))
    return packed.getvalue()


def _png(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """One chunk changed, its checksum right."""
    chunks, at = [], 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append([content[at + 4 : at + 8], content[at + 8 : at + 8 + length]])
        at += 12 + length
    chosen = rng.choice(chunks)
    if chosen[0] == b"IHDR" and rng.random() < 0.7:
        width, height = (rng.choice((0, 1, 7, 5000, 100_000, 2**31 - 1)) for _ in range(2))
        chosen[1] = struct.pack(">II", width, height) + bytes(
            rng.choice((each, rng.choice((1, 2, 3, 4, 6, 8, 16)))) for each in chosen[1][8:]
        )
    elif chosen[0] == b"IDAT" and rng.random() < 0.5:
        chosen[1] = zlib.compress(_bytes(rng, zlib.decompress(chosen[1])))
    else:
        chosen[1] = _bytes(rng, chosen[1])
    if rng.random() < 0.1:
        chosen[0] = rng.choice((b"tRNS", b"PLTE", b"eXIf", b"iTXt", b"zTXt", b"iCCP", b"acTL", b"fdAT"))
    packed = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return content[:8] + packed


def _pickle(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    choice = rng.random()
    if choice < 0.25:
        return rng.choice(PICKLED)
    if choice < 0.6:
        at = _place(rng, bytearray(content))
        return content[:at] + rng.choice(PICKLED)[:-1] + content[at:]
    at = _place(rng, bytearray(content))
    opcodes = (
        b"(.0123456789FGIJKLMNPQRSTUVXabcdeghijlopqrstu)]}\x81\x85\x86\x87\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96"
    )
    return content[:at] + bytes(rng.choice(opcodes) for _ in range(rng.choice((1, 2, 5)))) + content[at:]


def _quiet() -> Any:
    import warnings

    return warnings.catch_warnings(action="ignore")


def _is_safetensors(content: bytes) -> bool:
    return 2 < int.from_bytes(content[:8], "little") < len(content) and content[8:9] == b"{"


def _is_text(content: bytes) -> bool:
    return not content[:2000].translate(None, bytes((9, 10, 13, *range(32, 127))))


_Change = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
_STRUCTURES: tuple[tuple[Callable[[bytes], bool], _Change], ...] = (
    (lambda c: c.startswith(b"PK\x03\x04"), _zip),
    (lambda c: c.startswith(b"\x93NUMPY\x01"), _npy),
    (lambda c: c.startswith(b"\x89PNG"), _png),
    (_is_safetensors, _safetensors),
    (lambda c: c[257:262] == b"ustar", _tar),
    (lambda c: c[:1] == b"\x80" and c[1:2] in (b"\2", b"\3", b"\4", b"\5"), _pickle),
    (lambda c: c.lstrip()[:1] in (b"{", b"["), _json),
    (_is_text, _text),
)
