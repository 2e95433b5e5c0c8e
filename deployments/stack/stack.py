"""Bring a Prefect server and its workers up, and down again."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from deployments.errors import UserError
from deployments.server.run import server_command
from deployments.stack.auth import make_auth_file
from deployments.stack.service import NAME as SERVICE
from deployments.stack.service import refuse_taken_service_port, service_command
from deployments.stack.settings import StackSettings, prefect_command

START_SECONDS = 300.0
"""Longest wait for the server: the first start also makes its database."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """A process of the stack.

    Attributes:
        command: Its command line.
        environment: Variables in addition to the stack's.
    """

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


def server_part(stack: StackSettings) -> Part:
    """The server."""
    named = [word for name in stack.hosts for word in ("--name", name)]
    origin = ["--origin", stack.origin] if stack.origin else []
    return Part(server_command(stack.host, stack.port, *named, *origin))


def worker_parts(stack: StackSettings) -> dict[str, Part]:
    """The cpu pool's worker and one worker for each GPU, by name."""
    parts = {"worker-cpu": Part(_worker_command("cpu", "worker-cpu", stack.workers))}
    for gpu in range(stack.gpus):
        name = f"worker-gpu-{gpu}"
        command = _worker_command("gpu", name, 1)
        parts[name] = Part(command, {"CUDA_VISIBLE_DEVICES": str(gpu)})
    return parts


def _worker_command(pool: str, name: str, limit: int) -> list[str]:
    return prefect_command(
        *("worker", "start", "--pool", pool, "--name", name, "--limit", str(limit))
    )


def refuse_other_settings(stack: StackSettings) -> None:
    """Refuse settings that differ from those of running processes, which keep theirs.

    Raises:
        UserError: a process was started with other settings.
    """
    parts = {"server": server_part(stack), **worker_parts(stack)}
    if stack.service_port:
        parts[SERVICE] = Part(service_command(stack))
    for name, part in parts.items():
        _refuse_other(stack, name, part)


def _refuse_other(stack: StackSettings, name: str, part: Part) -> None:
    processes = stack.processes
    if processes.running(name) is None:
        return
    there = processes.command(name)
    if there == part.command:
        return
    raise UserError(
        f"{name} of {stack.folder} runs already, started with other settings: "
        f"{' '.join(there[3:])}. Stop it first (cirflow down), or give the same settings"
    )


def prepare(stack: StackSettings, say: Say) -> None:
    """Make the folder and the auth string of the server.

    Raises:
        UserError: the port is taken, or the folder cannot be made or written to.
    """
    if stack.processes.running("server") is None:
        _refuse_taken_port(stack)
    refuse_taken_service_port(stack)
    try:
        stack.home.mkdir(parents=True, exist_ok=True)
        stack.home.chmod(0o700)  # run history and parameters are private
        stack.processes.path.mkdir(exist_ok=True)
        if not stack.auth_string and make_auth_file(stack.auth_file):
            say(f"made an auth string: {stack.auth_file}")
        with tempfile.TemporaryFile(dir=stack.processes.path):
            pass
    except OSError as error:
        raise UserError(
            f"{stack.home} cannot be written to ({(error.strerror or str(error)).lower()}): give "
            "another folder (--folder), or make it yours"
        ) from error


def start_server(stack: StackSettings, say: Say) -> None:
    """Start the server, unless it runs, and wait until it answers.

    Raises:
        UserError: something else listens there, the server runs with other settings, or it ended
            or stayed silent.
    """
    part, processes = server_part(stack), stack.processes
    _refuse_other(stack, "server", part)
    if processes.running("server") is None:
        prepare(stack, say)
        say(f"starting the server at {stack.url} (the first time it also makes its database)")
        processes.start("server", part.command, stack.server_environment(), stack.folder)
    deadline = time.monotonic() + START_SECONDS
    while not _answers(stack):
        if processes.running("server") is None or time.monotonic() > deadline:
            raise UserError(
                f"the server does not answer at {stack.url}; see the end of its log, "
                f"{processes.log('server')}"
            )
        time.sleep(0.2)


def _refuse_taken_port(stack: StackSettings) -> None:
    """Try to listen where the server will."""
    try:
        for family, kind, _, _, address in socket.getaddrinfo(
            stack.host, stack.port, type=socket.SOCK_STREAM
        ):
            with socket.socket(family, kind) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            reason = (error.strerror or str(error)).lower()
            raise UserError(
                f"the server cannot listen at {stack.host} port {stack.port} ({reason}): give an "
                "address of this machine (--host) and a port above 1023 (--port)"
            ) from error
        what = "a Prefect server" if _answers(stack) else "another program"
        raise UserError(
            f"port {stack.port} is taken: {what} that was not started in {stack.folder} listens at "
            f"{stack.url}. Choose another port (--port), or stop it first"
        ) from error


def _answers(stack: StackSettings) -> bool:
    try:
        with urllib.request.urlopen(f"{stack.api_url}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):  # nothing listens there, or not a web server
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


def start_workers(stack: StackSettings, say: Say) -> None:
    """Start the workers that do not run yet."""
    for name, part in worker_parts(stack).items():
        environment = {**stack.client_environment(), **part.environment}
        if stack.processes.start(name, part.command, environment, stack.folder):
            say(f"started {name}: {' '.join(part.command[5:])}")


def start_service(stack: StackSettings, say: Say) -> None:
    """Start the service unless it runs or is left out; it comes up while others are at work."""
    if not stack.service_port:
        return
    environment = stack.service_environment()
    if stack.processes.start(SERVICE, service_command(stack), environment, stack.folder):
        say(f"started {SERVICE}: {stack.service_url}")


def stop(stack: StackSettings, say: Say) -> int:
    """Stop the processes that were started here, workers first; returns their number.

    Raises:
        UserError: the folder is another user's.
        PermissionError: a process is.
    """
    processes = stack.processes
    if not processes.path.is_dir():
        return 0
    if not os.access(processes.path, os.R_OK | os.W_OK | os.X_OK):
        raise UserError(f"{processes.path} cannot be written to: stop it as the user who owns it")
    with processes.alone(say):
        names = sorted(processes.names(), key=lambda name: name == "server")
        stopped = [name for name in names if processes.stop(name)]
    for name in stopped:
        say(f"stopped {name}")
    return len(stopped)
