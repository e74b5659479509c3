"""Members of tar archives: reading goes on after damaged parts, which are reported."""

import io
import tarfile

import pytest
from miniatures_tars import header_offsets, write_tar

from fasthamer.data.readers.tar_members import members


def names(path, **options):
    skipped: list[str] = []
    return [member["fname"] for member in members(path, skipped, **options)], skipped


def small(path):
    return write_tar(path, [(f"{i}.txt", bytes([i]) * 700) for i in range(6)])


def test_an_undamaged_archive_is_read_completely(tmp_path):
    found = list(members(small(tmp_path / "a.tar"), skipped := []))
    assert [member["fname"] for member in found] == [f"{i}.txt" for i in range(6)] and not skipped
    assert [member["data"] for member in found] == [bytes([i]) * 700 for i in range(6)]


def test_reading_continues_after_a_damaged_header(tmp_path):
    path = small(tmp_path / "a.tar")
    content = bytearray(path.read_bytes())
    begin = header_offsets(path)["2.txt"]
    content[begin + 100 : begin + 300] = bytes(range(200))
    path.write_bytes(content)
    found, skipped = names(path)
    assert found == ["0.txt", "1.txt", "3.txt", "4.txt", "5.txt"]
    assert len(skipped) == 1 and f"{path}: no header at byte {begin}" in skipped[0]


def test_zero_blocks_inside_an_archive_are_reported(tmp_path):
    path = small(tmp_path / "a.tar")
    content = bytearray(path.read_bytes())
    begin = header_offsets(path)["2.txt"]
    content[begin : begin + 1536] = bytes(1536)
    path.write_bytes(content)
    found, skipped = names(path)
    assert found == ["0.txt", "1.txt", "3.txt", "4.txt", "5.txt"]
    assert skipped == [f"{path}: 3 empty blocks before 3.txt"]


@pytest.mark.parametrize(("cut", "message"), [(0, "no end mark"), (200, "no header"), (512 + 100, "3.txt: cut short")])
def test_a_truncated_archive_is_reported(tmp_path, cut, message):
    path = small(tmp_path / "a.tar")
    path.write_bytes(path.read_bytes()[: header_offsets(path)["3.txt"] + cut])
    found, skipped = names(path)
    assert len(found) == 3 and len(skipped) == 1 and str(path) in skipped[0] and message in skipped[0]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_archive_and_long_names_are_read_as_tarfile_reads_them(tmp_path, form):
    path, long = tmp_path / "a.tar", "d" * 90 + "/" + "e" * 60 + ".jpg"
    unicode = "\u00e9/x.jpg" if form != tarfile.USTAR_FORMAT else "x.jpg"
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in ((long, b"1" * 512), ("dir", None), (unicode, b"2" * 513), ("b.txt", b"")):
            header = tarfile.TarInfo(name)
            header.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            header.size = len(content or b"")
            archive.addfile(header, io.BytesIO(content or b""))
    skipped: list[str] = []
    found = {member["fname"]: member["data"] for member in members(path, skipped)}
    assert found == {long: b"1" * 512, unicode: b"2" * 513, "b.txt": b""} and not skipped
    with tarfile.open(path) as archive:
        assert [each.name for each in archive if each.isreg()] == list(found)


@pytest.mark.parametrize("content", [b"", b"no archive" * 200])
def test_a_file_that_is_no_archive_is_reported(tmp_path, content):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    found, skipped = names(path)
    assert not found and len(skipped) == 1 and str(path) in skipped[0]


def test_a_member_above_the_size_limit_is_skipped_and_reported(tmp_path):
    found, skipped = names(small(tmp_path / "a.tar"), largest=100)
    assert not found and len(skipped) == 6 and "0.txt: of 700 bytes" in skipped[0]
