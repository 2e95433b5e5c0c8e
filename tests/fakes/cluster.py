"""A Prefect server on Postgres, and workers on hosts of their own that can be lost.

A host is a process group in all but name: the worker, everything that it started, and a Prefect
home that no other worker sees. What the workers share is the server and the S3 store.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psutil

from deployments.stack.settings import StackSettings, prefect_command
from deployments.stack.stack import start_server, stop

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import State

POOL = "cpu"


@dataclass(frozen=True)
class Begun:
    """A shard that a flow run was about to make.

    Attributes:
        worker: Whose flow run it was.
        run: The flow run.
        members: The shard's keys.
    """

    worker: str
    run: UUID
    members: tuple[str, ...]


@dataclass(frozen=True)
class Cluster:
    """The processes of a cluster; the environment names its database and its store."""

    stack: StackSettings

    # -- what an operator does -------------------------------------------------------------------

    def start_server(self) -> None:
        """Start the server, and wait until it answers."""
        start_server(self.stack, print)

    def stop_server(self) -> None:
        """End the server, as a new version or a new kernel wants it."""
        assert self.stack.processes.stop("server")

    def register(self, root: str, silence: timedelta) -> None:
        """Make everything that flow runs need, as the containers' start does.

        Args:
            root: Where tables lie.
            silence: How long a run may be silent before it counts as crashed.
        """
        from deployments.stack.unresponsive_runs import ensure_crash_rule

        with self.client() as client:
            assert ensure_crash_rule(client, silence)
        command = [sys.executable, "-m", "deployments.stack.register", "--root", root]
        done = subprocess.run(
            [*command, "--home", str(self.stack.folder)],
            env=self.stack.client_environment(),
            cwd=self.stack.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def set_entrypoint(self, deployment: str, entrypoint: str) -> None:
        """Let a deployment start another flow function."""
        from prefect.client.schemas.actions import DeploymentUpdate

        with self.client() as client:
            found = client.read_deployment_by_name(deployment)
            client.update_deployment(found.id, DeploymentUpdate(entrypoint=entrypoint))

    def start_worker(self, name: str, partner: str = "") -> None:
        """Start a worker of the pool that takes one run at a time, next to another or alone."""
        home = self.stack.folder / name
        home.mkdir()
        command = prefect_command(
            *("worker", "start", "--pool", POOL, "--name", name, "--limit", "1")
        )
        environment = self.stack.client_environment() | {
            "PREFECT_HOME": str(home),
            "CIRFLOW_NOTES": str(self._notes(name)),
            "CIRFLOW_PARTNER_NOTES": str(self._notes(partner)) if partner else "",
        }
        assert self.stack.processes.start(name, command, environment, home)

    def stop_worker(self, name: str) -> None:
        """End a worker, unless it is gone already."""
        self.stack.processes.stop(name)

    def start_run(self, deployment: str, parameters: Mapping[str, Any]) -> UUID:
        """Start a run of a deployment, as the button in the UI does."""
        with self.client() as client:
            found = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(found.id, parameters=dict(parameters)).id

    def close(self) -> None:
        """End everything."""
        stop(self.stack, print)

    # -- what happens to hosts -------------------------------------------------------------------

    @contextmanager
    def standing_still(self, worker: str) -> Iterator[None]:
        """Nothing moves on a worker's host; what is still there afterwards goes on."""
        for process in self._host(worker):
            process.suspend()
        yield
        for process in self._host(worker):
            process.resume()

    def lose_host(self, worker: str) -> None:
        """Kill a worker and everything below it with SIGKILL."""
        lost = self._host(worker)
        assert len(lost) > (worker != "server"), f"{worker} runs nothing: {self.log_end(worker)}"
        for process in lost:
            process.kill()
        psutil.wait_procs(lost, timeout=120)

    def _host(self, worker: str) -> list[psutil.Process]:
        """The worker and what it started, if it is alive; the worker first."""
        process = self.stack.processes.running(worker)
        return [process, *process.children(recursive=True)] if process else []

    # -- what one sees ---------------------------------------------------------------------------

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        """A client of this cluster's server, whatever this process speaks to otherwise."""
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

        auth = self.stack.auth_string
        with (
            temporary_settings(
                {PREFECT_API_URL: self.stack.api_url, PREFECT_API_AUTH_STRING: auth}
            ),
            get_client(sync_client=True) as client,
        ):
            yield client

    def state(self, run: UUID) -> State[Any]:
        """What the server knows of a flow run."""
        with self.client() as client:
            state = client.read_flow_run(run).state
        assert state is not None
        return state

    def begun(self) -> list[Begun]:
        """Every shard that was begun anywhere; of each worker in order."""
        found = []
        for file in sorted(self.stack.folder.glob("*/notes/*.jsonl")):
            worker, run = file.parent.parent.name, UUID(file.stem)
            # A killed process may leave a line half written: it is no shard that was begun.
            whole = file.read_text().rpartition("\n")[0].splitlines()
            found += [Begun(worker, run, tuple(json.loads(line)["members"])) for line in whole]
        return found

    def log_end(self, name: str, characters: int = 3000) -> str:
        """The last words of a process."""
        return self.stack.processes.log(name).read_text(errors="replace")[-characters:]

    def wait_until(self, happened: Callable[[], bool], what: str, seconds: float) -> float:
        """Wait for something; returns how long it took.

        Raises:
            TimeoutError: it did not happen; with the last words of all processes.
        """
        started = time.monotonic()
        while not happened():
            if time.monotonic() - started > seconds:
                words = [f"--- {n}\n{self.log_end(n)}" for n in self.stack.processes.names()]
                raise TimeoutError(f"not within {seconds:.0f} s: {what}\n" + "\n".join(words))
            time.sleep(0.5)
        return time.monotonic() - started

    def _notes(self, worker: str) -> Path:
        return self.stack.folder / worker / "notes"
