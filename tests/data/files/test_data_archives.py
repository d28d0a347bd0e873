"""Archives of every kind of malice and damage; none may write where it should not."""

import contextlib
import errno
import gzip
import io
import stat
import tarfile
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threefactor.data.files import archives
from threefactor.data.files.archives import read_member, unpack_files, unpack_tree, unpacked
from threefactor.errors import DataError

FILES = {"set/a.bin": bytes(range(256)) * 40, "set/deep/b.bin": b"b" * 5000, "set/c.txt": b""}
KINDS = ("zip", "tar.gz")


def zipped(files, method=zipfile.ZIP_DEFLATED, mode=0):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, body in files:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = method
            archive.writestr(info, body)
    return buffer.getvalue()


def tarred(files, kind=tarfile.REGTYPE, target=""):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, body in files:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            info.size = len(body) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def packed(kind, files=FILES):
    pairs = list(files.items() if isinstance(files, dict) else files)
    return {"zip": zipped, "tar.gz": tarred}[kind](pairs)


def tree(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def write(tmp_path):
    def function(body: bytes) -> Path:
        path = tmp_path / "archive"
        path.write_bytes(body)
        return path

    return function


@pytest.fixture
def refused(tmp_path, write):
    """A function that sees an archive refused, by all three, with nothing left behind."""

    def function(body: bytes, message: str, name="set/a.bin", limit=1 << 20):
        archive = write(body)
        before = set(tmp_path.rglob("*"))
        out = tmp_path / "out"
        for call in (
            lambda: read_member(archive, name, limit),
            lambda: unpack_files(archive, [name], out, limit),
            lambda: unpack_tree(archive, tmp_path / "tree", limit),
        ):
            with pytest.raises(DataError, match=message) as caught:
                call()
            assert str(archive) in str(caught.value)
        assert set(tmp_path.rglob("*")) - before <= {out}
        assert list(out.iterdir()) == []

    return function


def test_a_whole_archive_is_unpacked(tmp_path, write, kind):
    folder = unpack_tree(write(packed(kind)), tmp_path / "new" / "tree")
    assert tree(folder) == FILES
    assert (tmp_path / "new").stat().st_mode & 0o055 == folder.stat().st_mode & 0o055
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tree"]


def test_only_the_files_asked_for_are_unpacked_side_by_side(tmp_path, write, kind):
    names = ["set/deep/b.bin", "set/a.bin"]
    paths = unpack_files(write(packed(kind)), names, tmp_path / "out")
    assert paths == [tmp_path / "out" / "b.bin", tmp_path / "out" / "a.bin"]
    assert tree(tmp_path / "out") == {name.split("/")[-1]: FILES[name] for name in names}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in paths)


def test_one_file_is_read_without_writing_anything(tmp_path, write, kind):
    archive = write(packed(kind))
    assert read_member(archive, "set/a.bin") == FILES["set/a.bin"]
    assert list(tmp_path.iterdir()) == [archive]


def test_folders_in_an_archive_are_no_files(tmp_path, write):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in (".", "set"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("./set/c.txt"))
    assert tree(unpack_tree(write(buffer.getvalue()), tmp_path / "tree")) == {"set/c.txt": b""}
    folder = zipped([("set/", b""), ("set/c.txt", b"")])
    assert tree(unpack_tree(write(folder), tmp_path / "other")) == {"set/c.txt": b""}


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "set/../../evil", "C:evil", "set\\..\\..\\evil", "..", "//evil"]
)
def test_a_name_that_leads_out_of_the_folder_is_refused(refused, kind, name):
    refused(packed(kind, {**FILES, name: b"evil"}), "leads out of its folder")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_file_are_refused(refused, mode):
    refused(zipped([("set/a.bin", b"/etc")], mode=mode | 0o777), "neither a file nor a folder")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_in_a_tar_file_are_refused(refused, kind):
    refused(tarred([("set/a.bin", b"")], kind, "/etc"), "neither a file nor a folder")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["set/a.bin", "set/A.BIN", "./set/a.bin"])
def test_two_files_of_one_name_are_refused(refused, kind, second):
    refused(packed(kind, [("set/a.bin", b"1"), (second, b"2")]), "holds set/.* twice")


def test_an_archive_that_unpacks_to_too_much_is_refused(refused, kind):
    bomb = packed(kind, {"set/a.bin": bytes(30 << 20)})
    assert len(bomb) < 1 << 16
    refused(bomb, r"would unpack to more than 1,048,576 bytes")


def test_a_bomb_among_the_other_files_does_not_matter_in_a_zip_file(write):
    body = packed("zip", {"set/bomb": bytes(3 << 20), **FILES})
    assert read_member(write(body), "set/a.bin", 1 << 20) == FILES["set/a.bin"]


def test_a_bomb_among_the_other_files_is_not_unpacked_from_a_tar_file(refused):
    refused(packed("tar.gz", {"set/bomb": bytes(30 << 20), **FILES}), "would unpack to more")


def test_very_many_empty_files_are_refused(tmp_path, write, kind):
    archive = write(packed(kind, {f"set/{i}": b"" for i in range(300)}))
    with pytest.raises(DataError, match="would unpack to more than 1,000,000 bytes"):
        unpack_tree(archive, tmp_path / "tree", 1_000_000)
    assert len(tree(unpack_tree(archive, tmp_path / "tree"))) == 300


def test_a_size_that_is_a_lie_is_refused(refused):
    body = packed("zip", {"set/a.bin": b"x" * 20_000})
    true, lie = (20_000).to_bytes(4, "little"), (4096).to_bytes(4, "little")
    assert body.count(true) == 2
    refused(body.replace(true, lie), "is damaged")


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_archive_is_refused(refused, kind, part):
    body = packed(kind)
    refused(body[: int(len(body) * part)], "is damaged")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "begins with nothing; expected 50 4b"),
        (b"<html>", "begins with 3c 68"),
        (b"PK\3\4rest", "is damaged"),
        (gzip.compress(b"no tar file" * 100), "is damaged"),
        (zipped(list(FILES.items()), zipfile.ZIP_BZIP2), "compressed by method 12; expected 0"),
        (zipped([("set/a.bin", b"1")]).replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"),
         "encrypted"),
    ],
    ids=["empty", "web page", "zip magic", "gzip of no tar", "bzip2", "encrypted"],
)  # fmt: skip
def test_what_is_no_such_archive_is_refused(refused, body, message):
    refused(body, message)


def test_an_archive_that_is_absent_or_a_folder_is_refused(tmp_path):
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "directory")):
        with pytest.raises(DataError, match=f"cannot be read .*{reason}"):
            read_member(path, "set/a.bin")
        with pytest.raises(DataError, match=f"cannot be read .*{reason}"):
            unpack_files(path, ["set/a.bin"], tmp_path / "out")


def test_files_that_the_archive_lacks_are_named(tmp_path, write, kind):
    archive = write(packed(kind))
    with pytest.raises(DataError, match=r"holds no set/d, set/e; is it another archive"):
        unpack_files(archive, ["set/e", "set/a.bin", "set/d"], tmp_path / "out")
    assert tree(tmp_path / "out") == {}
    with pytest.raises(DataError, match=r"holds no a\.bin"):
        read_member(archive, "a.bin")


def test_files_that_are_there_are_kept_and_others_of_their_name_refused(tmp_path, write, kind):
    archive, out = write(packed(kind)), tmp_path / "out"
    names = ["set/a.bin", "set/deep/b.bin"]
    first, _ = unpack_files(archive, names[:1], out) * 2
    before = first.stat()
    unpack_files(archive, names, out)
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    (out / "b.bin").write_bytes(b"mine")
    first.unlink()
    with pytest.raises(DataError, match=r"b\.bin is there already but differs.* left untouched"):
        unpack_files(archive, names, out)
    assert tree(out) == {"b.bin": b"mine"}


def test_a_tree_never_goes_where_something_is(tmp_path, write, kind):
    (tmp_path / "tree").mkdir()
    with pytest.raises(DataError, match="is there already; it was left untouched"):
        unpack_tree(write(packed(kind)), tmp_path / "tree")


@pytest.mark.parametrize(
    "failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_nothing_half_unpacked_stays_behind(tmp_path, write, kind, monkeypatch, failure):
    write_file, calls = archives._write, []

    def break_off(chunks, path):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise failure
        write_file(chunks, path)

    monkeypatch.setattr(archives, "_write", break_off)
    archive = write(packed(kind))
    with pytest.raises(type(failure)):
        unpack_files(archive, ["set/a.bin", "set/deep/b.bin"], tmp_path / "out")
    calls.clear()
    with pytest.raises(type(failure)):
        unpack_tree(archive, tmp_path / "tree")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["archive", "out"]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_archive_gives_the_right_contents_or_an_error(kind, data):
    body = bytearray(packed(kind, {"set/a.bin": FILES["set/a.bin"], "set/b": b"other" * 300}))
    position = data.draw(st.integers(0, len(body) - 1))
    if data.draw(st.booleans()):
        body = body[:position]
    else:
        body[position] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive"
        archive.write_bytes(body)
        with contextlib.suppress(DataError):
            assert read_member(archive, "set/a.bin", 1 << 20) == FILES["set/a.bin"]
            found = tree(unpack_tree(archive, Path(folder) / "tree", 1 << 20))
            assert FILES["set/a.bin"] in found.values()


@pytest.mark.parametrize("second", ["set/a.bin/b.bin", "SET/A.bin/c", "set"])
def test_a_name_that_is_a_file_and_a_folder_is_refused(refused, kind, second):
    refused(packed(kind, [("set/a.bin", b"1"), (second, b"2")]), "both as a file and as a folder")


def test_a_name_that_no_file_system_takes_is_refused(refused, kind):
    refused(packed(kind, {**FILES, f"set/{'n' * 300}": b""}), "a name of 300 characters")


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_bomb_in_a_header_is_not_read(refused, form):
    """A long name is read at once, whatever it is compressed to."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as archive:
        archive.addfile(tarfile.TarInfo("set/" + "n" * (3 << 20)))
        archive.addfile(tarfile.TarInfo("set/a.bin"))
    refused(
        buffer.getvalue(), r"a header of 3,145,\d+ bytes; expected at most 65,536", limit=8 << 20
    )


def test_processes_that_unpack_at_once_all_get_the_whole_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i in range(200):
            archive.writestr(f"tree/{i}", b"x" * 100)
    start = Barrier(3)

    def act(_):
        start.wait()
        folder = unpacked(tmp_path / "a.zip", "tree")
        return folder, len(list(folder.iterdir()))

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(act, range(3))) == [(tmp_path / "tree", 200)] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "tree"]
