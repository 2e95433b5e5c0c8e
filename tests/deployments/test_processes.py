"""Processes by name: what is ours is found and ended, what is not is left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deployments.errors import UserError
from deployments.stack.processes import ProcessFolder

SLEEP = ["sleep", "600"]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ProcessFolder]:
    folder = ProcessFolder(tmp_path / "processes")
    yield folder
    for name in folder.names():
        folder.stop(name)


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_process_is_started_once_and_found_again(
    processes: ProcessFolder, tmp_path: Path
) -> None:
    assert processes.start("a", SLEEP, os.environ, tmp_path) is True
    running = processes.running("a")
    assert running is not None
    assert processes.start("a", SLEEP, os.environ, tmp_path) is False
    assert processes.running("a") == running
    assert processes.command("a") == SLEEP
    assert processes.names() == ["a"]
    assert processes.stop("a") is True
    assert not is_alive(running)
    assert processes.names() == []
    assert processes.stop("a") is False


def test_what_a_killed_process_left_behind_is_ended_and_nothing_else(
    processes: ProcessFolder, tmp_path: Path
) -> None:
    script = "sleep 600 & echo $! > left; wait"
    processes.start("worker", ["sh", "-c", script], os.environ, tmp_path)
    processes.start("other", SLEEP, os.environ, tmp_path)
    wait_until((tmp_path / "left").exists)
    wait_until((tmp_path / "left").read_text)
    left = psutil.Process(int((tmp_path / "left").read_text()))
    worker, other = processes.running("worker"), processes.running("other")
    assert worker is not None
    assert other is not None
    worker.kill()
    wait_until(lambda: processes.running("worker") is None)
    assert is_alive(left)
    assert processes.stop("worker") is True
    assert not is_alive(left)
    assert is_alive(other)


def test_a_process_id_that_somebody_else_got_is_left_alone(
    processes: ProcessFolder, tmp_path: Path
) -> None:
    foreign = psutil.Popen(SLEEP, start_new_session=True)
    try:
        record = {"pid": foreign.pid, "began": foreign.create_time() - 100, "command": SLEEP}
        processes.path.mkdir()
        (processes.path / "a.json").write_text(json.dumps(record))
        assert processes.running("a") is None
        assert processes.stop("a") is False
        assert is_alive(foreign)
        assert processes.names() == []
    finally:
        foreign.kill()
        foreign.wait()


@pytest.mark.parametrize("record", ["", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_broken_record_is_no_process(processes: ProcessFolder, record: str) -> None:
    processes.path.mkdir()
    (processes.path / "a.json").write_text(record)
    assert processes.running("a") is None
    assert processes.stop("a") is False
    assert processes.names() == []


def test_a_temporary_server_that_does_not_start_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from deployments import prefect_session

    monkeypatch.chdir(tmp_path)
    ends = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(prefect_session, "server_command", lambda *options: ends)
    with (
        pytest.raises(UserError, match=r"did not start \(exit status 3\).*cirflow up"),
        prefect_session.temporary_server(),
    ):
        pytest.fail("it started")


def test_a_server_ends_with_the_process_that_started_it() -> None:
    """Its standard input is a pipe from there, which ends however that process dies."""
    code = (
        "import signal\n"
        "from deployments.server.run import end_with_input\n"
        "end_with_input()\n"
        "print('runs', flush=True)\n"
        "signal.pause()\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stdout.readline() == b"runs\n"
    assert server.poll() is None
    server.stdin.close()
    assert server.wait(timeout=60) == -signal.SIGTERM
