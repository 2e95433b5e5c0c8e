"""No run leaves a pickle or a secret anywhere, and what it raised is not in the user's home."""

from __future__ import annotations

import base64
import binascii
import json
import pickle
import pickletools
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.drawn import draw_folder
from tests.fakes.live_stack import clean_environment

KEY = "sk-a-key-that-nobody-shall-see"
RUNS = """
import base64, os

from deployments.prefect_session import prefect_session

with prefect_session():
    import flows.ingest_collection as module

    print(module.ingest_collection(source="photos", name="good"))
    ends = {"failed": ValueError, "crashed": KeyboardInterrupt, "ended": SystemExit}
    for name, error in ends.items():
        def raises(*given, **named):
            key = os.environ["SOME_API_KEY"]
            packed = base64.b64encode(key.encode()).decode()
            try:
                raise OSError("the server echoed " + key)
            except OSError as cause:
                raise error("what " + name + " said, " + key + " and " + packed) from cause

        module.ingest = raises
        try:
            module.ingest_collection(source="photos", name=name)
            raise AssertionError(name)
        except BaseException as raised:
            assert type(raised) is error, repr(raised)
"""
SAID = b"what failed said"


def is_pickle(content: bytes) -> bool:
    """Whether the bytes are a whole pickle that names its protocol, a class or a call.

    Words and numbers happen to be pickles of nothing, such as "0.".
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            names = {operation.name for operation, _, _ in pickletools.genops(content)}
    except Exception:  # whatever stops the parser: it is none
        return False
    return bool(names & {"PROTO", "GLOBAL", "STACK_GLOBAL", "INST", "REDUCE"})


def unpacked(content: bytes) -> Iterator[bytes]:
    """The content, and what is wrapped in it as JSON or base64."""
    yield content
    with suppress(binascii.Error):
        yield base64.b64decode(b"".join(content.split()), validate=True)
    try:
        value = json.loads(content)
    except ValueError:
        return
    for leaf in leaves(value):
        yield from unpacked(leaf.encode())


def leaves(value: Any) -> Iterator[str]:
    """Every string of a document, unless it is the document."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from (leaves(inner) if not isinstance(inner, str) else [inner])


def cells(file: Path) -> Iterator[bytes]:
    """Every text and blob of a database."""
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
        tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in tables:
            for row in database.execute(f'select * from "{table}"'):
                yield from (c if isinstance(c, bytes) else str(c).encode() for c in row if c)


def written(place: Path) -> Iterator[tuple[Path, bytes]]:
    """Everything that lies below a folder."""
    for file in sorted(place.rglob("*")):
        if file.suffix == ".db":
            yield from ((file, cell) for cell in cells(file))
        elif file.is_file():
            yield file, file.read_bytes()


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_the_search_finds_pickles(protocol: int) -> None:
    content = pickle.dumps(ValueError("x"), protocol)
    wrapped = json.dumps({"result": [base64.encodebytes(content).decode()]}).encode()
    for found in (content, base64.encodebytes(content), wrapped):
        assert any(map(is_pickle, unpacked(found)))
    for other in (b"", b"text.", b"{}", b'{"a": "b"}', b"\x89PNG", b"abc" * 50):
        assert not any(map(is_pickle, unpacked(other)))


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.timeout(900)
def test_runs_that_fail_or_crash_or_succeed_leave_no_pickle_and_no_secret(
    repository: Path, tmp_path: Path
) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    draw_folder(work / "photos", 2, seed=1)
    # A user's own setting, which the flows do not follow.
    environment = clean_environment(repository) | {
        "HOME": str(home),
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "pickle",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "SOME_API_KEY": KEY,
    }
    done = subprocess.run(
        [sys.executable, "-c", RUNS], cwd=work, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # What a command says last is sent before its server ends; it would be tried for a minute.
    assert "connection attempts failed" not in done.stdout + done.stderr
    found = list(written(tmp_path))
    assert not [file for file, content in found if any(map(is_pickle, unpacked(content)))]
    hidden = (KEY.encode(), base64.b64encode(KEY.encode())[:-4])
    assert not [file for file, content in found if any(form in content for form in hidden)]
    assert not any(form.decode() in done.stdout + done.stderr for form in hidden)
    own = work / ".cirflow" / "prefect"
    kept = {file.parent for file, content in found if SAID in content}
    assert kept == {own, own / "storage"}  # the database of the temporary server, and a record
    assert {file.name for file in home.rglob("*") if file.is_file()} <= {"memo_store.toml"}
