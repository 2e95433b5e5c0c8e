"""Prefect's settings for one command, set before Prefect is imported.

A server that is configured (PREFECT_API_URL or a Prefect profile) is used. Otherwise a temporary
one is started, which takes a while on small machines: it gets time, and the user is told.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from deployments.errors import UserError
from deployments.prefect_variables import check_variables
from deployments.server.run import server_command
from deployments.stack.auth import CLIENT_VARIABLE, SERVER_VARIABLE, USER

QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}
"""No telemetry and no advertising, wherever Prefect runs."""

RECORDS = {
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
}
"""Results are not stored. Prefect stores the error of a failed run all the same, here as JSON."""

# Stages report their own failures, once each; Prefect would print every traceback twice.
DEFAULTS = {
    **QUIET,
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    **RECORDS,
}

STORAGE = "PREFECT_RESULTS_LOCAL_STORAGE_PATH"
DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"

LAST_WORDS_SECONDS = 10.0
"""Longest wait for the logs, and for the events, that a command has still to send."""


def _own_folder() -> Path:
    """Where Prefect keeps what runs say and raise: in the project, since that is its data."""
    return Path(".cirflow", "prefect").absolute()


def configure_prefect(home: Path | None = None) -> None:
    """Set Prefect's variables that are not set yet. Call it before anything imports Prefect.

    Args:
        home: Prefect's own folder for this command; None keeps the user's.

    Raises:
        UserError: a variable has a value that cannot be used.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    url = os.environ.get("PREFECT_API_URL", "")
    if home is not None and not url:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ.setdefault("PREFECT_HOME", str(home))
    if not {"PREFECT_HOME", "PREFECT_LOCAL_STORAGE_PATH"} & os.environ.keys():
        os.environ.setdefault(STORAGE, str(_own_folder() / "storage"))
    if url and CLIENT_VARIABLE not in os.environ:
        from deployments.stack.settings import running_here

        stack = running_here(url, Path.cwd())
        if stack is not None:
            os.environ[CLIENT_VARIABLE] = stack.auth_string
    check_variables()


class Ran(NamedTuple):
    """A flow's result, and the seconds that Prefect's start and the flow took."""

    result: Any
    start_up: float
    seconds: float

    @property
    def in_words(self) -> str:
        """Both times."""
        before = f"Prefect's start-up {self.start_up:.1f} s, " if self.start_up else ""
        return f"{before}the flow {self.seconds:.1f} s"


def run_flow(flow: Any, parameters: Mapping[str, Any], home: Path | None = None) -> Ran:
    """Run a flow for one command, its progress shown; the flow's module is imported already.

    Where no server is configured, the flow first looks up what exists. If nothing is to be made,
    that is its result, and no temporary server is started.

    Args:
        flow: The flow.
        parameters: Its parameters.
        home: As `configure_prefect`.

    Raises:
        UserError: shards of a stage failed.
    """
    from prefect.settings import PREFECT_API_URL

    from deployments.display import stage_display, work_display
    from flows.running import StageFailed, shown_by
    from tasks.unrecorded import WorkToDo, run_unrecorded

    started = time.monotonic()
    if not PREFECT_API_URL.value():
        with suppress(WorkToDo), shown_by(work_display):
            result = run_unrecorded(flow, parameters)
            return Ran(result, 0.0, time.monotonic() - started)
    with prefect_session(home) as start_up:
        started = time.monotonic()
        try:
            with shown_by(stage_display):
                result = flow(**parameters)
        except StageFailed as error:
            raise UserError(str(error)) from error
        return Ran(result, start_up, time.monotonic() - started)


@contextmanager
def prefect_session(home: Path | None = None) -> Iterator[float]:
    """Configure Prefect and bring its API up; yields the seconds that took.

    Args:
        home: as `configure_prefect`.
    """
    configure_prefect(home)
    from deployments.display import console

    started = time.monotonic()
    with ExitStack() as stack:
        with console.status("starting Prefect (its temporary server takes up to a minute)"):
            from prefect.settings import PREFECT_API_URL

            if not PREFECT_API_URL.value():
                stack.enter_context(temporary_server())
            from deployments.stack.connection import server_client

            with server_client(str(PREFECT_API_URL.value())):
                pass  # it answers, and takes us
        _quiet_shutdown()
        yield time.monotonic() - started


@contextmanager
def temporary_server() -> Iterator[None]:
    """Run a Prefect server for this process alone, on a free port of the loopback interface.

    Its auth string is known to this process and its children. Prefect can start a server itself,
    but that one answers everybody, and this process would import the whole server too, which
    costs several seconds of processor time.

    Raises:
        UserError: the server ended, or did not answer in time.
    """
    import httpx
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
        get_current_settings,
        temporary_settings,
    )

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    auth = f"{USER}:{secrets.token_urlsafe(24)}"
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", SERVER_VARIABLE: auth}
    own |= _own_database()
    server = subprocess.Popen(
        server_command("127.0.0.1", port, "--until-input-ends"),
        env={**os.environ, **settings, **own},
        stdin=subprocess.PIPE,  # ends with this process, also when it is killed
        start_new_session=True,  # Ctrl-C in a terminal would end it while the run still needs it
    )
    try:
        deadline = time.monotonic() + PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        while not _answers(httpx, f"{url}/health") or server.poll() is not None:
            if server.poll() is not None or time.monotonic() > deadline:
                raise UserError(
                    f"Prefect's temporary server did not start (exit status {server.poll()}); see "
                    "its messages above, or start one with `cirflow up` and set PREFECT_API_URL"
                )
            time.sleep(0.1)
        with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: auth}):
            try:
                yield
            finally:
                _send_what_waits()
    finally:
        server.terminate()
        try:
            server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _send_what_waits() -> None:
    """Send the logs and events that wait in this process, while the server still answers.

    Prefect sends them at exit, when it would try for a minute to reach a server that has ended.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=LAST_WORDS_SECONDS)


def _own_database() -> dict[str, str]:
    """The temporary server's database, unless the user chose one or another home of Prefect."""
    chosen = {"PREFECT_HOME", DATABASE, "PREFECT_API_DATABASE_CONNECTION_URL"}
    if chosen & os.environ.keys():
        return {}
    folder = _own_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made ({error.strerror}): type the command in a folder that you "
            "may write to, or set PREFECT_HOME"
        ) from error
    return {DATABASE: f"sqlite+aiosqlite:///{folder / 'commands.db'}"}


def _answers(httpx: Any, url: str) -> bool:
    try:
        return bool(httpx.get(url).status_code == 200)
    except httpx.TransportError:
        return False


def _quiet_shutdown() -> None:
    """Keep the temporary server's last messages (cancelled tasks) off the terminal."""
    for name in ("prefect.server", "prefect._internal", "prefect.events"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
