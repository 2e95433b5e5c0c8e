"""Spies on a live stack: a flow that tells what it was given, a proxy that hears who calls home."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.fakes.live_stack import LiveStack

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PROBE = '''\
"""A flow that says what it is and what it was given."""

import hashlib
import json
import os
import time
from pathlib import Path

from prefect import flow


@flow(name="probe")
def probe(seconds: float, variable: str) -> None:
    secret = hashlib.sha256(os.environ[variable].encode()).hexdigest()
    Path("probe.new").write_text(json.dumps({"pid": os.getpid(), "secret": secret}))
    Path("probe.new").rename("probe.json")
    time.sleep(seconds)
'''


def make_probe(stack: LiveStack, client: SyncPrefectClient) -> None:
    """A deployment of a flow that sleeps: one run at a time, others are cancelled."""
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions

    (stack.folder / "probe.py").write_text(PROBE)
    step = "prefect.deployments.steps.set_working_directory"
    client.create_deployment(
        flow_id=client.create_flow_from_name("probe"),
        name="probe",
        entrypoint="probe.py:probe",
        work_pool_name="cpu",
        pull_steps=[{step: {"directory": str(stack.folder)}}],
        concurrency_limit=1,
        concurrency_options=ConcurrencyOptions(
            collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
        ),
    )


@contextmanager
def listening_proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A web proxy that lets nothing through: its address, and the first line of all it was asked.

    Whoever calls home asks it, where the environment says so.
    """
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                with caller:
                    asked.append(caller.recv(4096).partition(b"\r\n")[0])
                    caller.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
