"""Archives read without unpacking: every kind, random access, and what hostile or damaged ones may not do."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import stat
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_datasets import archive_streams
from robot_datasets.archives import (
    ArchiveBombError,
    ArchiveError,
    ArchiveLimits,
    ArchiveReader,
    archive_stem,
    index_archive,
)

CONTENT = {
    "set_0/meta/info.json": b"{}",
    "set_0/data/a.parquet": bytes(range(256)) * 40,
    "set_0/videos/long" + "x" * 150 + ".mp4": np.random.default_rng(0).bytes(700_000),
    "set_0/empty": b"",
    "set_0/\u53d6\u308b.txt": b"unicode name",
}
COMPRESSORS = {"tar": bytes, "tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}
KINDS = [*COMPRESSORS, "tar.zst", "zip"]


def _tar(content: Mapping[str, bytes], *extra: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return buffer.getvalue()


def _write(path: Path, kind: str, content: Mapping[str, bytes] = CONTENT) -> Path:
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    elif kind == "tar.zst":
        path.write_bytes(pa.Codec("zstd").compress(_tar(content), asbytes=True))
    else:
        path.write_bytes(COMPRESSORS[kind](_tar(content)))
    return path


def _special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _contents(path: Path, limits: ArchiveLimits | None = None) -> dict[str, bytes]:
    index = index_archive(path, limits)
    with ArchiveReader(index) as reader:
        return {name: reader.read(name) for name in index.members}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_its_content(kind: str, tmp_path: Path) -> None:
    """Names and bytes come back from plain and compressed tar and zip, whatever the file is called."""
    path = _write(tmp_path / "a.bin", kind)
    assert _contents(path) == CONTENT
    assert index_archive(path).damage == ""


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_old_tar_dialects_are_read(format: int, tmp_path: Path) -> None:
    """GNU's long names and ustar's prefixes, besides pax."""
    content = {f"{'folder/' * 15}{'n' * 90}": b"long", "b": b"short"}
    (tmp_path / "a.tar").write_bytes(_tar(content, format=format))
    assert _contents(tmp_path / "a.tar") == content


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_read_in_any_order(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going back and forth gives the same bytes as going forward, also through a pickled index."""
    monkeypatch.setattr(archive_streams, "_CHECKPOINT_EVERY", 20_000)
    monkeypatch.setattr(archive_streams, "_STEP_BYTES", 7_000)
    random = np.random.default_rng(1)
    content = {f"f{i}": random.bytes(int(n)) for i, n in enumerate(random.integers(0, 30_000, 40))}
    index = pickle.loads(pickle.dumps(index_archive(_write(tmp_path / "a", kind, content))))
    with ArchiveReader(index) as reader:
        for i in random.integers(0, 40, 150):
            assert reader.read(f"f{i}") == content[f"f{i}"]


def test_going_back_in_gzip_does_not_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred jumps in a gzip archive cost a few steps each, not a hundred passes."""
    monkeypatch.setattr(archive_streams, "_CHECKPOINT_EVERY", 100_000)
    monkeypatch.setattr(archive_streams, "_STEP_BYTES", 50_000)
    content = {f"f{i}": np.random.default_rng(i).bytes(20_000) for i in range(200)}
    index = index_archive(_write(tmp_path / "a", "tar.gz", content))
    taken = [0]
    take = archive_streams.UnpackedStream._take

    def counted(stream: archive_streams.UnpackedStream, size: int) -> bytes:
        out = take(stream, size)
        taken[0] += len(out)
        return out

    monkeypatch.setattr(archive_streams.UnpackedStream, "_take", counted)
    with ArchiveReader(index) as reader:
        reader.read("f199")  # a first pass, which leaves checkpoints
        taken[0] = 0
        for i in np.random.default_rng(0).integers(0, 200, 100):
            reader.read(f"f{i}")
    assert taken[0] < 100 * 200_000


def test_large_members_are_seekable_files_that_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large member is spooled to a file without a name, so nothing stays even after a kill."""
    monkeypatch.setattr("robot_datasets.archives._IN_MEMORY", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    index = index_archive(_write(tmp_path / "a", "tar.gz"))
    name = next(n for n in CONTENT if n.endswith(".mp4"))
    with ArchiveReader(index) as reader, reader.open(name) as file:
        file.seek(-10, io.SEEK_END)
        assert file.read() == CONTENT[name][-10:]
        assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../escape", "a/../../escape", "/etc/passwd", "\\\\host\\x", "..\\up", "C:\\x", "C:x", "a\nb", "."],
)
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_paths_that_lead_outside_are_refused(name: str, kind: str, tmp_path: Path) -> None:
    """A member whose path escapes is listed as refused; the others are read."""
    index = index_archive(_write(tmp_path / "a", kind, {name: b"evil", "good": b"fine"}))
    assert list(index.members) == ["good"]
    assert "leads outside" in next(iter(index.refused.values()))


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    """Symbolic links, devices and pipes are no files; a hard link is another name of a file before it."""
    specials = [
        _special("link", tarfile.SYMTYPE, "/etc/passwd"),
        _special("device", tarfile.CHRTYPE),
        _special("pipe", tarfile.FIFOTYPE),
        _special("outside", tarfile.LNKTYPE, "../../secret"),
        _special("twin", tarfile.LNKTYPE, "good"),
    ]
    (tmp_path / "a.tar").write_bytes(_tar({"good": b"fine"}, *specials))
    index = index_archive(tmp_path / "a.tar")
    assert sorted(index.refused) == ["device", "link", "outside", "pipe"]
    assert _contents(tmp_path / "a.tar") == {"good": b"fine", "twin": b"fine"}
    with pytest.raises(ArchiveError, match=r"link in a\.tar cannot be read: it is a link"):
        ArchiveReader(index).read("link")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    """A zip member with the mode of a symbolic link is no file."""
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
        archive.writestr("good", "fine")
    assert dict(index_archive(tmp_path / "a.zip").refused) == {"link": "it is a link or a device"}


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    """A sparse member of a few bytes can claim terabytes; it is not read."""
    info = tarfile.TarInfo("holes")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 45)}
    (tmp_path / "a.tar").write_bytes(_tar({}, info))
    assert dict(index_archive(tmp_path / "a.tar").refused) == {"holes": "it is stored sparsely"}


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip"])
def test_bombs_are_noticed_before_they_go_off(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content out of proportion to the file is an error (or refused, in a zip), found by reading little of it."""
    for module in ("archive_streams._SLACK_BYTES", "archive_listing._RATIO_SLACK"):
        monkeypatch.setattr(f"robot_datasets.{module}", 1 << 20)
    path = _write(tmp_path / "a", kind, {"zeros": bytes(24 << 20)})
    limits = ArchiveLimits(ratio=20)
    if kind == "zip":
        assert "expands to more than 20 times" in index_archive(path, limits).refused["zeros"]
    else:
        with pytest.raises(ArchiveBombError, match="more than 20 times its size; if it is trusted, raise"):
            index_archive(path, limits)
    assert list(index_archive(path, ArchiveLimits(ratio=1e9)).members) == ["zeros"]


def test_size_and_number_of_members_are_limited(tmp_path: Path) -> None:
    """One large member is refused alone; too much content or too many members refuse the archive."""
    path = _write(tmp_path / "a", "tar.gz", {"large": bytes(5000), "small": bytes(10)})
    index = index_archive(path, ArchiveLimits(member_bytes=1000))
    assert (list(index.members), list(index.refused)) == (["small"], ["large"])
    with pytest.raises(ArchiveBombError, match="more than 3000 bytes"):
        index_archive(path, ArchiveLimits(total_bytes=3000))
    with pytest.raises(ArchiveBombError, match="more than 1 members"):
        index_archive(path, ArchiveLimits(members=1))
    with pytest.raises(ArchiveBombError, match="more than"):
        index_archive(_write(tmp_path / "z", "zip", {"a": bytes(5000)}), ArchiveLimits(total_bytes=3000))


def test_headers_with_absurd_claims_are_damage(tmp_path: Path) -> None:
    """A name of gigabytes or a negative size ends the list; no memory is taken for it."""
    for kind, size in ((b"L", 1 << 33), (b"x", 1 << 33), (tarfile.REGTYPE, -512)):
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, size
        (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        index = index_archive(tmp_path / "a.tar")
        assert not index.members
        assert "header at byte 0" in index.damage


@pytest.mark.parametrize("kind", [*COMPRESSORS, "tar.zst"])
def test_truncated_archives_give_what_is_before_the_end(kind: str, tmp_path: Path) -> None:
    """Members that are whole are listed and readable; the rest is reported as damage."""
    content = {f"f{i}": np.random.default_rng(i).bytes(200_000) for i in range(20)}
    path = _write(tmp_path / "a", kind, content)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    index = index_archive(path)
    assert "truncated" in index.damage or "too early" in index.damage
    assert (1 if kind == "tar.bz2" else 8) <= len(index.members) <= 12
    assert all(data == content[name] for name, data in _contents(path).items())


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    """What the standard library would silently read as a shorter archive is reported."""
    data = bytearray(_tar({f"f{i}": bytes(600) for i in range(5)}))
    second = 512 + 1024
    data[second + 5] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(data)
    index = index_archive(tmp_path / "a.tar")
    assert list(index.members) == ["f0"]
    assert index.damage == f"the header at byte {second} is damaged"


def test_a_wrong_checksum_is_reported(tmp_path: Path) -> None:
    """A gzip file whose checksum does not fit its content says so, although every member can be read."""
    path = _write(tmp_path / "a", "tar.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF
    path.write_bytes(data)
    index = index_archive(path)
    assert "incorrect data check" in index.damage
    assert len(index.members) == len(CONTENT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no zip or tar archive"),
        (b"<html>not found</html>", "begins with b'<html>not fo'; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"PK\x03\x04 and no more", "its list of members is at the end"),
    ],
)
def test_what_is_no_archive_is_one_clear_error(content: bytes, message: str, tmp_path: Path) -> None:
    """Empty files, error pages, pointers and cut zips are told apart."""
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(ArchiveError, match=message):
        index_archive(tmp_path / "a.tar.gz")


def test_an_archive_that_changed_is_noticed(tmp_path: Path) -> None:
    """A member that ends too early when it is read is an error, not short data."""
    index = index_archive(_write(tmp_path / "a", "tar"))
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:3000])
    with pytest.raises(
        ArchiveError, match=r"set_0/data/a\.parquet in a: it ends too early; copy the archive again"
    ):
        ArchiveReader(index).read("set_0/data/a.parquet")


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.tar.gz", "a"), ("A.TGZ", "A"), ("b.c.tar", "b.c"), ("d.zip", "d"), ("e.gz", ""), ("f.mp4", "")],
)
def test_archive_names_are_told_by_their_suffix(name: str, stem: str) -> None:
    """The stem of an archive's name, or nothing."""
    assert archive_stem(name) == stem


@settings(max_examples=120, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32 - 1),
    cut=st.floats(0, 1),
    n_flips=st.integers(0, 30),
)
def test_damage_never_leads_to_anything_but_archive_errors(
    kind: str, seed: int, cut: float, n_flips: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever bytes change or are missing: listing and reading end, with members of the listed size or an error."""
    folder = tmp_path_factory.mktemp("fuzz")
    content = {f"f{i}": bytes([i]) * (1 + 300 * i) for i in range(8)}
    path = _write(folder / "a", kind, content)
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for place in random.integers(0, len(data), n_flips):
        data[place] ^= int(random.integers(1, 256))
    path.write_bytes(data[: max(1, int(len(data) * cut))] if cut < 0.5 else data)
    try:
        index = index_archive(path)
    except ArchiveError:
        return
    with ArchiveReader(index) as reader:
        for name, member in index.members.items():
            try:
                assert len(reader.read(name)) == member.size
            except ArchiveError:
                continue
