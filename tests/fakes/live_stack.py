"""`cirflow up` in a folder of its own, used as people use it: by commands and by the API."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psutil

from deployments.stack.settings import StackSettings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

PATIENCE_SECONDS = 900.0
"""Longest wait for a command or a run; busy machines take minutes for the imports alone."""


@dataclass(frozen=True)
class LiveStack:
    """A stack that is up.

    Attributes:
        folder: Where its runs work.
        environment: Environment of whoever types commands.
        port: Where the server listens.
        service_port: Where the service does; 0 leaves it out.
    """

    folder: Path
    environment: Mapping[str, str]
    port: int
    service_port: int = 0

    @property
    def settings(self) -> StackSettings:
        """Where things lie; as if on loopback."""
        return StackSettings(self.folder, port=self.port, service_port=self.service_port)

    @property
    def root(self) -> Path:
        """Where the tables are kept by default."""
        return self.folder / ".cirflow"

    def cirflow(self, *arguments: str, status: int = 0) -> str:
        """Type a command in the folder; returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "deployments.cli", *arguments],
            cwd=self.folder,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def up(self, *arguments: str, status: int = 0) -> str:
        """Type `cirflow up` as for this stack, and more arguments."""
        return self.cirflow("up", *self.words, *arguments, status=status)

    @property
    def words(self) -> list[str]:
        """Options of `cirflow up` for this stack."""
        own = f"--service-port={self.service_port}" if self.service_port else "--no-service"
        return ["--port", str(self.port), "--gpus", "0", own]

    @contextmanager
    def client(self, auth: str | None = None) -> Iterator[SyncPrefectClient]:
        """A client of the server, whatever this process speaks to otherwise."""
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

        own = self.settings.auth_string if auth is None else auth
        server = {PREFECT_API_URL: self.settings.api_url, PREFECT_API_AUTH_STRING: own}
        with temporary_settings(server), get_client(sync_client=True) as client:
            yield client

    def start(
        self, client: SyncPrefectClient, deployment: str, parameters: Mapping[str, Any]
    ) -> UUID:
        """Start a run of FLOW/DEPLOYMENT; returns its id."""
        found = client.read_deployment_by_name(deployment)
        return client.create_flow_run_from_deployment(found.id, parameters=dict(parameters)).id

    def wait_for(self, client: SyncPrefectClient, run: UUID) -> FlowRun:
        """Wait until a run has ended."""
        found: list[FlowRun] = []

        def ended() -> bool:
            found.append(client.read_flow_run(run))
            state = found[-1].state
            return state is not None and state.is_final()

        self.wait_until(ended, f"the end of run {run}")
        return found[-1]

    def wait_until(self, happened: Callable[[], Any], what: str) -> None:
        """Wait for something.

        Raises:
            TimeoutError: it did not happen; with the last words of all processes.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come\n{self.logs()[-6000:]}")
            time.sleep(0.5)

    def logs(self) -> str:
        """All that the processes wrote."""
        files = sorted(self.settings.processes.path.glob("*.log"))
        return "\n".join(f"--- {file.stem}\n{file.read_text(errors='replace')}" for file in files)

    def processes(self) -> list[psutil.Process]:
        """Everything that runs with this stack's state, whoever started it."""
        home = str(self.settings.home)
        return [p for p in psutil.process_iter() if environment_of(p).get("PREFECT_HOME") == home]


def environment_of(process: psutil.Process) -> dict[str, str]:
    """Environment of a process; empty if it is gone or somebody else's."""
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}


def clean_environment(repository: Path) -> dict[str, str]:
    """This process's environment without Prefect's settings, which are none of the stack's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "DO_NOT_TRACK"))}
    return kept | {"PYTHONPATH": str(repository)}
