import copy
import errno
import os
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from botocore.exceptions import ClientError

from storage.checks.cleaning import clean
from storage.locations import stores
from storage.locations.location import Location, LocationError, NoRoom


def test_create_publishes_once(location: Location) -> None:
    assert location.create("a/b/c.bin", b"first")
    assert not location.create("a/b/c.bin", b"second")
    assert location.read_bytes("a/b/c.bin") == b"first"
    assert location.size("a/b/c.bin") == 5


def test_create_of_more_than_a_multi_part_chunk_is_conditional_too(location: Location) -> None:
    # s3fs would upload from 100 MiB on in parts, and servers differ in whether the condition holds.
    large = bytes(101 * 2**20)
    assert location.create("large.bin", large)
    assert not location.create("large.bin", large)
    assert location.size("large.bin") == len(large)


def test_of_many_racing_writers_one_wins_and_its_bytes_stay(location: Location) -> None:
    barrier = threading.Barrier(8)
    won: list[bytes] = []

    def write(number: int) -> None:
        data = bytes([number]) * 100_000
        barrier.wait()
        if location.create("raced.bin", data):
            won.append(data)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert location.read_bytes("raced.bin") == won[0]


def test_replace_overwrites_and_rename_keeps_the_content(location: Location) -> None:
    location.replace("pointer.json", b"1")
    location.replace("pointer.json", b"22")
    location.rename("pointer.json", "aside/pointer.json")
    assert location.read_bytes("aside/pointer.json") == b"22"
    assert not location.exists("pointer.json")


def test_listing_is_recursive_sorted_relative_and_never_stale(location: Location) -> None:
    assert location.list() == location.list("nothing/there") == []
    for path in ("b/2", "b/1", "a", "b/c/3", "bb/4"):
        location.create(path, path.encode())
    assert location.list() == ["a", "b/1", "b/2", "b/c/3", "bb/4"]
    assert location.list("b") == ["b/1", "b/2", "b/c/3"]
    assert [entry.size for entry in location.entries("b")] == [3, 3, 5]
    location.create("b/0", b"")
    assert location.list("b")[0] == "b/0"


def test_stamps_tell_versions_apart(location: Location) -> None:
    location.replace("file", b"old")
    before = location.stat("file")
    assert before == location.entries()[0]
    location.replace("file", b"new")
    if location.is_local:
        os.utime(location.join("file"), ns=(1, 1))
    assert location.stat("file").stamp != before.stamp


def test_reading(location: Location) -> None:
    location.create("file", bytes(range(256)))
    for sequential in (False, True):
        with location.open_read("file", sequential=sequential) as file:
            file.seek(-3, os.SEEK_END)
            assert file.read() == b"\xfd\xfe\xff"
            file.seek(16)
            assert file.read(2) == b"\x10\x11"
    for read in (location.read_bytes, location.size, location.open_read):
        with pytest.raises(FileNotFoundError):
            read("no/such/file")


def test_a_location_travels_to_other_processes(location: Location) -> None:
    location.create("x", b"1")
    again = copy.deepcopy(location)  # what pickling would carry along
    assert again == location
    assert again.read_bytes("x") == b"1"
    assert location.child("sub").root == location.join("sub")


def test_probe_finds_a_good_place_good_and_leaves_nothing(location: Location) -> None:
    assert location.probe() == ""
    assert location.list() == []


def test_probe_detects_a_server_that_ignores_the_condition(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overwrite(self: Location, path: str, data: bytes) -> bool:
        self.replace(path, data)
        return True

    monkeypatch.setattr(Location, "create", overwrite)
    assert "second writer" in location.probe()


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a\0b"])
def test_paths_may_not_leave_the_root(tmp_path: Path, path: str) -> None:
    location = Location(str(tmp_path))
    for use in (location.read_bytes, location.exists, location.join):
        with pytest.raises(ValueError, match="below the root"):
            use(path)


@pytest.mark.parametrize(
    "root", ["", "gs://b/x", "http://me:secret@h/x", "s3://", "s3:///x", "s3://key:secret@bucket/x"]
)
def test_unknown_roots_are_refused_without_repeating_secrets(root: str) -> None:
    with pytest.raises(ValueError, match="location") as refusal:
        Location(root)
    assert "secret" not in str(refusal.value)


def test_roots_are_normalised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = str(tmp_path / "data")
    for root in ("data", "./data", "~/data", f"file://{expected}", expected + "/"):
        assert Location(root).root == expected
    assert Location("s3://bucket/a/b/").root == "s3://bucket/a/b"
    assert Location("s3://bucket").local_path("x") is None
    assert Location(expected).local_path("x") == tmp_path / "data" / "x"


def test_what_a_killed_writer_left_is_invisible_and_can_be_removed(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    location.create("real", b"x")
    left = tmp_path / ".staging" / "0123"
    left.write_bytes(b"half a part")
    assert location.list() == ["real"]
    assert clean(location) == []  # young: its writer may be alive
    os.utime(left, (0, 0))
    assert [entry.path for _, entry in clean(location)] == [".staging/0123"]
    assert list((tmp_path / ".staging").iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_failed_write_leaves_nothing_and_a_full_disk_is_named(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    location = Location(str(tmp_path))
    monkeypatch.setattr(stores.os, "fsync", no_space)
    with pytest.raises(NoRoom, match=f"{tmp_path} takes no more files .*: make room there"):
        location.create("a", b"x")
    with pytest.raises(NoRoom):
        location.replace("a", b"x")
    monkeypatch.undo()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "make room there"), (errno.EROFS, "make it writable"), (errno.EIO, "")],
)
@pytest.mark.parametrize("step", ["mkdir", "link"])
def test_a_disk_that_takes_no_name_is_told_from_one_bad_file(
    step: str, number: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where inodes are short, folders fail first; a disk with errors becomes read-only."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    location = Location(str(tmp_path))
    monkeypatch.setattr(Path if step == "mkdir" else stores.os, step, refuse)
    with pytest.raises(OSError, match=f"{remedy} and run again" if remedy else None) as told:
        location.create("a/b", b"x")
    assert isinstance(told.value, NoRoom) == bool(remedy)
    monkeypatch.undo()
    assert location.create("a/b", b"x")


def test_a_file_system_without_hard_links_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(stores.os, "link", no_links)
    with pytest.raises(LocationError, match="no hard links"):
        Location(str(tmp_path)).create("a", b"x")
    assert "no hard links" in Location(str(tmp_path)).probe()


def _conflict() -> OSError:
    response = {"Error": {"Code": "ConditionalRequestConflict", "Message": "in flight"}}
    error = OSError(errno.EIO, "in flight")
    error.__cause__ = ClientError(response, "PutObject")
    return error


class _Contended:
    """A file system whose first writes fail with an error, before or after another writer's."""

    def __init__(self, files: Any, error: OSError, times: int, theirs: bytes | None) -> None:
        self.files, self.error, self.times, self.theirs = files, error, times, theirs

    def pipe_file(self, path: str, data: bytes, **options: object) -> None:
        if self.times == 0:
            self.files.pipe_file(path, data, **options)
            return
        self.times -= 1
        if self.theirs is not None:
            self.files.pipe_file(path, self.theirs)
        raise self.error


@pytest.mark.parametrize("theirs", [None, b"theirs"])
def test_a_conflict_of_conditional_writes_is_tried_again(
    s3_location: Location, monkeypatch: pytest.MonkeyPatch, theirs: bytes | None
) -> None:
    files = _Contended(fsspec.filesystem("s3", use_listings_cache=False), _conflict(), 1, theirs)
    with monkeypatch.context() as patch:
        patch.setattr(stores.S3Store, "_files", files)
        assert s3_location.create("x", b"ours") is (theirs is None)
    assert s3_location.read_bytes("x") == (theirs or b"ours")


@pytest.mark.parametrize(
    ("error", "raised"), [(_conflict(), LocationError), (PermissionError("no"), PermissionError)]
)
def test_endless_conflict_and_other_errors_are_raised(
    monkeypatch: pytest.MonkeyPatch, error: OSError, raised: type[OSError]
) -> None:
    monkeypatch.setattr(stores.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(stores.S3Store, "_files", _Contended(None, error, 1000, None))
    with pytest.raises(raised):
        Location("s3://bucket").create("x", b"1")
