"""The container of model files: exact, repeatable, and safe to read whatever the bytes are."""

import errno
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgmm import files
from fastgmm.archive import DTYPES, read_archive, write_archive
from fastgmm.errors import ModelFileError
from fastgmm.files import replacing

HEADER = {"format": "test", "text": "Σ", "number": 0.1, "nothing": None}
ARRAYS = {
    "matrix": np.array([[1.5, -0.0], [np.inf, np.nan]]),
    "single": np.arange(3, dtype=np.float32),
    "empty": np.empty((0, 4)),
    "scalar": np.array(7),
}


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "good.npz"
    write_archive(path, HEADER, ARRAYS)
    return path.read_bytes()


def assert_refused(path, content):
    """Reading `content` either fails as documented or gives the original; it never takes much memory."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        archive = read_archive(path)
        message = str(path)
    except ModelFileError as error:
        archive, message = None, str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert str(path) in message
    assert "\n" not in message
    assert peak < 2_000_000
    return archive


def archive_of(**members):
    """Build a zip file with members written in the ordinary way."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_round_trip_keeps_every_bit(tmp_path):
    path = tmp_path / "file.any"
    write_archive(path, HEADER, ARRAYS)
    archive = read_archive(path)
    assert archive.header == HEADER
    assert set(archive.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert archive.arrays[name].dtype == array.dtype
        assert archive.arrays[name].shape == array.shape
        assert archive.arrays[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_byte_order_and_layout_is_stored(tmp_path, dtype):
    array = np.arange(6).astype(np.dtype(dtype).newbyteorder(">")).reshape(2, 3).T
    write_archive(tmp_path / "a", {}, {"x": array})
    np.testing.assert_array_equal(read_archive(tmp_path / "a").arrays["x"], array)


def test_numpy_reads_the_file(tmp_path):
    write_archive(tmp_path / "a.npz", HEADER, ARRAYS)
    with np.load(tmp_path / "a.npz") as loaded:
        np.testing.assert_array_equal(loaded["matrix"], ARRAYS["matrix"])
        assert loaded["scalar"].shape == ()
        assert json.loads(loaded["header"].tobytes()) == HEADER


def test_equal_content_gives_equal_bytes(tmp_path, content):
    write_archive(tmp_path / "again", HEADER, ARRAYS)
    assert (tmp_path / "again").read_bytes() == content


def test_only_header_leaves_arrays_unread(tmp_path, content):
    position = content.index(ARRAYS["matrix"].tobytes())
    (tmp_path / "a").write_bytes(content[:position] + b"x" + content[position + 1 :])
    assert read_archive(tmp_path / "a", only_header=True).header == HEADER
    with pytest.raises(ModelFileError, match="CRC"):
        read_archive(tmp_path / "a")


def test_object_arrays_are_not_written(tmp_path):
    with pytest.raises(TypeError, match="object"):
        write_archive(tmp_path / "a", {}, {"x": np.array([{}])})
    assert list(tmp_path.iterdir()) == []


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_or_harmless(tmp_path_factory, content, position, bit):
    changed = bytearray(content)
    changed[position % len(content)] ^= 1 << bit
    archive = assert_refused(tmp_path_factory.getbasetemp() / "flipped", bytes(changed))
    if archive is not None:  # a time stamp, an attribute: nothing that carries data
        assert archive.header == HEADER
        for name, array in ARRAYS.items():
            assert archive.arrays[name].tobytes() == array.tobytes()


@given(st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=8)), min_size=1, max_size=20))
def test_overwritten_bytes_never_escape_as_another_error(tmp_path_factory, content, edits):
    changed = bytearray(content)
    for position, data in edits:
        start = position % len(content)
        changed[start : start + len(data)] = data
    assert_refused(tmp_path_factory.getbasetemp() / "edited", bytes(changed))


def test_every_truncation_is_refused(tmp_path, content):
    for length in range(0, len(content), 7):
        assert assert_refused(tmp_path / "short", content[:length]) is None


@given(st.binary(max_size=300))
def test_foreign_bytes_are_refused(tmp_path_factory, data):
    assert assert_refused(tmp_path_factory.getbasetemp() / "foreign", data) is None


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("code of the file was run",))


GOOD_HEADER = npy(np.frombuffer(b"{}", np.uint8))
HOSTILE = {
    "pickle": pickle.dumps(Bomb()),
    "pickled header": archive_of(header=npy(np.array([Bomb()], dtype=object), allow_pickle=True)),
    "pickled array": archive_of(header=GOOD_HEADER, x=npy(np.array([Bomb()], dtype=object), allow_pickle=True)),
    "no header": archive_of(x=npy(np.zeros(2))),
    "header is a list": archive_of(header=npy(np.frombuffer(b"[]", np.uint8))),
    "header is no JSON": archive_of(header=npy(np.frombuffer(b"{", np.uint8))),
    "header nests deeply": archive_of(header=npy(np.frombuffer(b'{"a":' + b"[" * 200_000, np.uint8))),
    "header is no array": archive_of(header=b"{}"),
    "Fortran order": archive_of(header=GOOD_HEADER, x=npy(np.asfortranarray(np.zeros((2, 3))))),
    "too short": archive_of(header=GOOD_HEADER, x=npy(np.zeros(4))[:-8]),
    "too long": archive_of(header=GOOD_HEADER, x=npy(np.zeros(4)) + b"12345678"),
    "absurd shape": archive_of(header=GOOD_HEADER, x=npy(np.zeros(4)).replace(b"(4,), }      ", b"(999999999,)}")),
    "text": archive_of(header=GOOD_HEADER, x=npy(np.array(["a"]))),
    "npy": npy(np.zeros(3)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path, name):
    assert assert_refused(tmp_path / "hostile", HOSTILE[name]) is None


def test_an_honest_looking_absurd_shape_allocates_nothing(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }" + b" " * 20 + b"\n"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)
    assert assert_refused(tmp_path / "a", archive_of(header=GOOD_HEADER, x=member)) is None


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", npy(np.zeros(5_000_000)))
    assert len(buffer.getvalue()) < 100_000
    assert assert_refused(tmp_path / "bomb", buffer.getvalue()) is None


def test_overlapping_members_are_refused(tmp_path):
    """Many directory entries for one stretch of data: each fits into the file, their sum does not."""
    single = archive_of(header=GOOD_HEADER, x=npy(np.zeros(10_000)))
    directory = single.index(b"PK\x01\x02")
    end = single.index(b"PK\x05\x06")
    last = single.rindex(b"PK\x01\x02")
    entry = single[last:end]
    entries = single[directory:end] + b"".join(entry.replace(b"x.npy", b"%c.npy" % c) for c in b"abcdefgh")
    tail = bytearray(single[end:])
    tail[8:12] = struct.pack("<HH", 10, 10)
    tail[12:16] = struct.pack("<I", len(entries))
    assert assert_refused(tmp_path / "overlap", single[:directory] + entries + bytes(tail)) is None


def test_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_archive(tmp_path / "none")


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="bytes-like"), replacing(path) as file:
        file.writelines([b"new", None])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_keeps_permissions_and_follows_links(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(target)
    with replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_replacing_names_the_users_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing/model"), replacing(tmp_path / "missing" / "model"):
        pass
    with pytest.raises(IsADirectoryError), replacing(tmp_path):
        pass


def refuse(number):
    def call(*_, **__):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("way", ["without a name", "with a name", "no link"])
def test_every_way_of_replacing_is_whole_and_leaves_nothing(tmp_path, monkeypatch, way):
    if way == "with a name":
        monkeypatch.setattr(files, "NAMELESS", None)
    if way == "no link":
        monkeypatch.setattr(files.os, "link", refuse(errno.EPERM))
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o604)
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        if way == "without a name" and files.NAMELESS is not None:
            assert list(tmp_path.iterdir()) == [path]  # a process that is killed here leaves nothing
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o604
    with pytest.raises(RuntimeError), replacing(path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(files.NAMELESS is None, reason="this system has no files without a name")
def test_a_file_system_without_nameless_files_and_one_that_is_full(tmp_path, monkeypatch):
    real = os.open

    def opened(number):
        def call(path, flags, *rest):
            if flags & files.NAMELESS == files.NAMELESS:
                raise OSError(number, os.strerror(number))
            return real(path, flags, *rest)

        return call

    monkeypatch.setattr(files.os, "open", opened(errno.EOPNOTSUPP))
    with replacing(tmp_path / "file") as file:
        file.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    monkeypatch.setattr(files.os, "open", opened(errno.ENOSPC))
    with pytest.raises(OSError, match="file") as caught, replacing(tmp_path / "file"):
        pass
    assert caught.value.errno == errno.ENOSPC
