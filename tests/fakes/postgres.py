"""A real Postgres server of a test's own, on loopback and with a password."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REQUIRED = "CIRFLOW_REQUIRE_POSTGRES"
"""Where this is set, a machine without Postgres fails the tests that want one."""
START_SECONDS = 120


@contextmanager
def postgres() -> Iterator[str]:
    """Make a database cluster, serve it, and remove it; gives USER:PASSWORD@HOST:PORT/DATABASE.

    Postgres refuses to run as root, and pytest's folders are closed to others: root lends it
    another user and a folder outside them.
    """
    programs = _programs()
    user = _user()
    place = Path(tempfile.mkdtemp(prefix="cirflow-postgres-"))
    try:
        password = secrets.token_hex(16)
        (place / "password").write_text(password)
        if user is not None:
            for path in (place, place / "password"):
                shutil.chown(path, user)
        _make_cluster(programs, place, user)
        with _serving(programs, place, user) as port:
            yield f"cirflow:{password}@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _programs() -> Path:
    """The folder of `initdb` and `postgres`; skips the test where there is none."""
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name)
    )
    known = [path for path in installed if (path / "initdb").exists()]
    if known:
        return known[-1]
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    lacking = "no Postgres: neither on PATH nor below /usr/lib/postgresql (Debian: postgresql)"
    if os.environ.get(REQUIRED):
        pytest.fail(f"{lacking}, and {REQUIRED} is set")
    pytest.skip(lacking)


def _user() -> str | None:
    """Whom Postgres runs as; None: as ourselves."""
    if os.geteuid():
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _make_cluster(programs: Path, place: Path, user: str | None) -> None:
    command = [
        *(str(programs / "initdb"), "--pgdata", str(place / "data"), "--username", "cirflow"),
        *("--auth", "scram-sha-256", "--pwfile", str(place / "password")),
        *("--encoding", "UTF8", "--no-locale", "--no-sync"),
    ]
    done = subprocess.run(
        command, user=user, cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _serving(programs: Path, place: Path, user: str | None) -> Iterator[int]:
    port, log = free_port(), place / "log"
    command = [
        *(str(programs / "postgres"), "-D", str(place / "data"), "-p", str(port)),
        *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
        *("-c", "fsync=off"),
    ]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, user=user, cwd=place, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while b"ready to accept connections" not in log.read_bytes():
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Postgres did not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)
        yield port
    finally:
        server.send_signal(signal.SIGINT)  # ends its sessions, then itself
        try:
            server.wait(120)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(120)
