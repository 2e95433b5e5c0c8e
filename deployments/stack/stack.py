"""Bring a Prefect server with pools, limits, deployments and workers up, and down again."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from deployments.errors import UserError
from deployments.stack.settings import PREFECT_YAML, StackSettings, prefect_command, project_file

START_SECONDS = 180.0
"""Longest wait for the server: the first start also makes its database."""

Say = Callable[[str], None]


def start_server(stack: StackSettings, say: Say) -> None:
    """Start the server, unless it runs, and wait until it answers.

    Raises:
        UserError: something else listens there, or the server ended or stayed silent.
    """
    processes = stack.processes
    if processes.running("server") is None and _answers(stack):
        raise UserError(
            f"something already answers at {stack.url}, and it was not started here. Choose "
            "another port (--port), or stop it first"
        )
    command = prefect_command(*("server", "start", "--host", stack.host, "--port", str(stack.port)))
    if processes.running("server") is not None and processes.command("server") != command:
        there = " ".join(processes.command("server")[-4:])
        raise UserError(
            f"the server of {stack.folder} runs already, started with {there}. Stop it first "
            "(cirflow down), or give the same address"
        )
    if processes.start("server", command, stack.server_environment(), stack.folder):
        say(f"starting the server at {stack.url} (the first time it also makes its database)")
    deadline = time.monotonic() + START_SECONDS
    while not _answers(stack):
        if processes.running("server") is None or time.monotonic() > deadline:
            raise UserError(
                f"the server does not answer at {stack.url}; its last words are in "
                f"{processes.log('server')}"
            )
        time.sleep(0.5)


def _answers(stack: StackSettings) -> bool:
    try:
        with urllib.request.urlopen(f"{stack.api_url}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def as_client(stack: StackSettings) -> Iterator[None]:
    """Let this process speak to the stack's server. Use it before Prefect is imported."""
    before = dict(os.environ)
    os.environ.update(stack.client_environment())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def deploy(environment: Mapping[str, str], say: Say) -> None:
    """Register every deployment of `prefect.yaml`; schedules changed in the UI stay changed.

    Args:
        environment: Names the server, CIRFLOW_HOME and CIRFLOW_HEAVY_POOL.
        say: Is told what happens.

    Raises:
        UserError: Prefect refused one of them.
    """
    file = project_file(PREFECT_YAML)
    say(f"registering the deployments of {PREFECT_YAML}")
    done = subprocess.run(
        prefect_command("--no-prompt", "deploy", "--all", "--prefect-file", str(file)),
        env=dict(environment),
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"prefect deploy failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def start_workers(stack: StackSettings, say: Say) -> None:
    """Start the cpu pool's worker and one worker for each GPU, where they do not run yet."""
    workers: dict[str, tuple[str, int, dict[str, str]]] = {"worker-cpu": ("cpu", stack.workers, {})}
    for gpu in range(stack.gpus):
        workers[f"worker-gpu-{gpu}"] = ("gpu", 1, {"CUDA_VISIBLE_DEVICES": str(gpu)})
    for name, (pool, limit, extra) in workers.items():
        command = prefect_command(
            *("worker", "start", "--pool", pool, "--name", name, "--limit", str(limit))
        )
        environment = {**stack.client_environment(), **extra}
        if stack.processes.start(name, command, environment, stack.folder):
            say(f"started {name}: pool {pool}, {limit} at once")


def stop(stack: StackSettings, say: Say) -> int:
    """Stop what was started here, workers first; returns how many processes ran."""
    processes = stack.processes
    names = sorted(processes.names(), key=lambda name: name == "server")
    stopped = [name for name in names if processes.stop(name)]
    for name in stopped:
        say(f"stopped {name}")
    return len(stopped)
