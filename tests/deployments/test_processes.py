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
from deployments.stack.processes import MARK, ProcessFolder

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


def test_a_process_whose_starter_was_killed_before_it_noted_the_id_is_found(
    processes: ProcessFolder, tmp_path: Path
) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from deployments.stack import processes\n"
        "processes._identity = lambda process: os.kill(os.getpid(), signal.SIGKILL)\n"
        "folder = processes.ProcessFolder(Path(sys.argv[1]))\n"
        "folder.start('a', ['sleep', '600'], os.environ, Path.cwd())\n"
    )
    starter = subprocess.run([sys.executable, "-c", code, str(processes.path)])
    assert starter.returncode == -signal.SIGKILL
    # Started by somebody else with the same words: not ours.
    foreign = psutil.Popen(SLEEP, start_new_session=True, env={MARK: "another"})
    try:
        wait_until(lambda: processes.running("a"))
        found = processes.running("a")
        assert found is not None
        assert found.cmdline() == SLEEP
        assert processes.start("a", SLEEP, os.environ, tmp_path) is False
        assert processes.stop("a") is True
        assert not is_alive(found)
        assert is_alive(foreign)
    finally:
        foreign.kill()
        foreign.wait()


def test_one_command_at_a_time_starts_and_stops_and_a_killed_one_keeps_nobody_out(
    processes: ProcessFolder,
) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from deployments.stack.processes import ProcessFolder\n"
        "with ProcessFolder(Path(sys.argv[1])).alone(print):\n"
        "    print('alone', flush=True)\n"
        "    time.sleep(600)\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(processes.path)], stdout=subprocess.PIPE
    )
    said: list[str] = []
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"alone\n"

        def waiting(line: str) -> None:
            said.append(line)
            first.kill()  # what it started lives on; its lock does not

        with processes.alone(waiting):
            assert first.wait() == -signal.SIGKILL
    finally:
        first.kill()
        first.wait()
    assert len(said) == 1
    assert "waiting" in said[0]


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
