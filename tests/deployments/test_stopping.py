"""A command that is asked to stop ends soon, says how to resume, and leaves no server behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.fakes.triplet_tables import write_triplets

RESUME = "run the command again to resume"
STUCK = """
import signal, sys, time
from deployments import cli, stopping

# A process that a shell put into the background ignores Ctrl-C, and one under nohup SIGHUP.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

def run(arguments):
    while True:  # whatever is raised, as in a client that asks a lost server again and again
        try:
            print("runs", flush=True)
            while True:  # a signal that comes just before a long sleep waits for its end
                time.sleep(0.05)
        except KeyboardInterrupt:
            pass

stopping.GRACE_S = float(sys.argv[1])
sys.exit(cli._guarded(run, None, "as the command says"))
"""


@pytest.mark.parametrize(
    ("grace", "signals", "status"),
    [
        ("0.2", [signal.SIGTERM], 143),
        ("0.2", [signal.SIGHUP], 143),
        ("0.2", [signal.SIGINT], 130),
        ("600", [signal.SIGINT] * 2, 130),
    ],
)
def test_what_does_not_end_is_ended(grace: str, signals: list[int], status: int) -> None:
    """After a while, or at once at a second Ctrl-C."""
    command = subprocess.Popen(
        [sys.executable, "-c", STUCK, grace],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    for number in signals:
        assert command.stdout.readline() == "runs\n"
        command.send_signal(number)
    assert command.wait(timeout=60) == status
    assert command.stderr is not None
    assert command.stderr.read().count("cirflow: stopped; as the command says") == 1


def test_handlers_are_as_before_once_a_command_has_ended() -> None:
    from deployments.stopping import stopped_by_signals

    before = signal.getsignal(signal.SIGTERM)
    with stopped_by_signals("") as stop:
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1
    assert not stop.asked


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_training_is_stopped_and_resumed(tmp_path: Path, repository: Path) -> None:
    """A terminal's Ctrl-C reaches the whole process group; the temporary server is outside it."""
    triplets = write_triplets(str(tmp_path))
    values = {
        "triplets": json.dumps(triplets.model_dump(mode="json")),
        "root": str(tmp_path),
        "training.max_steps": "20",
        "training.validation": "4",
        "batch_size": "4",
        "run.save_steps": "1",
    }
    words = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "deployments.cli", "run", "train-reformulation", *words]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    running = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(tmp_path.glob("training/reformulation/*/state.ckpt")):
        assert running.poll() is None
        time.sleep(0.05)
    servers = psutil.Process(running.pid).children(recursive=True)
    assert servers
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(timeout=60) == 130
    assert running.stderr is not None
    assert running.stderr.read().count(RESUME) == 1
    assert not psutil.wait_procs(servers, timeout=60)[1]
    assert not list(tmp_path.glob("checkpoints/reformulation/*"))
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert len(list(tmp_path.glob("checkpoints/reformulation/*"))) == 1
