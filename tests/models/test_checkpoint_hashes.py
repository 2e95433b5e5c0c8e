"""A large file is hashed once on a machine, and again as soon as it may be another."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from models import checkpoints
from models.checkpoints import HASHES, file_sha256
from models.user_cache import recall, remember, user_cache_folder

SIZE = 8 * 2**20

PROCESS = """
import sys
from pathlib import Path
from models import checkpoints
checkpoints._SETTLED_SECONDS = -1.0
before = int(Path("/proc/self/io").read_text().split()[1])
digest = checkpoints.file_sha256(Path(sys.argv[1]))
print(digest, int(Path("/proc/self/io").read_text().split()[1]) - before)
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checkpoints, "_SETTLED_SECONDS", -1.0)
    checkpoints._sha256.cache_clear()
    return tmp_path / "cache" / "cirflow" / HASHES


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    file.write_bytes(os.urandom(SIZE))
    return file


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry a file that is hashed here."""
    found: list[int] = []
    own = hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        found.append(os.fstat(file.fileno()).st_size)
        return own(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return found


def sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def in_new_memory(file: Path) -> str:
    """As another process would ask: nothing is in memory."""
    checkpoints._sha256.cache_clear()
    return file_sha256(file)


@pytest.mark.skipif(sys.platform != "linux", reason="counts bytes in /proc")
def test_a_file_is_read_once_by_two_processes(cache: Path, weights: Path) -> None:
    found = []
    for _ in range(2):
        command = [sys.executable, "-c", PROCESS, str(weights)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        digest, read = done.stdout.split()
        assert digest == sha(weights)
        found.append(int(read))
    assert found[0] >= SIZE
    assert found[1] < 2**16


def test_a_changed_file_is_hashed_again(cache: Path, weights: Path, reads: list[int]) -> None:
    before = in_new_memory(weights)
    assert in_new_memory(weights) == before
    assert reads == [SIZE]
    stamp = weights.stat().st_mtime_ns
    other = bytearray(weights.read_bytes())
    other[5] ^= 1
    weights.write_bytes(other)
    os.utime(weights, ns=(stamp, stamp))  # same size, same time: the inode's own time tells
    assert in_new_memory(weights) == sha(weights) != before
    aside = weights.with_name("aside")
    aside.write_bytes(os.urandom(SIZE))
    os.replace(aside, weights)
    assert in_new_memory(weights) == sha(weights)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "list", "other digest", "other file"])
def test_a_damaged_record_costs_a_hash(
    cache: Path, weights: Path, reads: list[int], damage: str
) -> None:
    expected = in_new_memory(weights)
    (record,) = cache.iterdir()
    good = record.read_text()
    lies = {"name": "elsewhere"} if damage == "other file" else {"value": "0" * 64}
    record.write_bytes(
        {
            "cut": good[:50].encode(),
            "empty": b"",
            "noise": b"\xff\x00" * 40,
            "list": b"[1, 2]",
        }.get(damage, json.dumps(json.loads(good) | lies).encode())
    )
    assert in_new_memory(weights) == expected
    assert reads == [SIZE, SIZE]
    assert record.read_text() == good  # and is mended


def test_a_record_of_another_type_is_not_believed(cache: Path, weights: Path) -> None:
    state = checkpoints._state(str(weights))._asdict()
    for value in (7, "abc", None, ["0" * 64]):
        remember(HASHES, str(weights), state, value)  # type: ignore[arg-type]
        assert in_new_memory(weights) == sha(weights)


def test_a_cache_that_cannot_be_written_is_done_without(
    cache: Path, weights: Path, reads: list[int]
) -> None:
    cache.parent.parent.write_text("a file where a folder should be")
    assert in_new_memory(weights) == in_new_memory(weights) == sha(weights)
    assert reads == [SIZE, SIZE]


def test_small_and_fresh_files_are_not_remembered(
    cache: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (weights.parent / "config.json").write_text("{}")
    in_new_memory(weights.parent / "config.json")
    monkeypatch.setattr(checkpoints, "_SETTLED_SECONDS", 60.0)
    in_new_memory(weights)
    assert not cache.exists()


def test_writers_at_the_same_time_leave_a_whole_record(cache: Path) -> None:
    state = {"size": 1}
    values = [f"{i:064x}" for i in range(8)]

    def write(value: str) -> None:
        for _ in range(50):
            remember(HASHES, "thing", state, value)
            assert recall(HASHES, "thing", state) in values

    threads = [threading.Thread(target=write, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recall(HASHES, "thing", state) in values
    assert recall(HASHES, "thing", {"size": 2}) is None
    assert [file.suffix for file in cache.iterdir()] == [".json"]


@pytest.mark.parametrize("given", ["", "relative/place"])
def test_the_folder_follows_the_platform(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert user_cache_folder() == Path.home() / ".cache" / "cirflow"
