"""`cirflow up` in a folder of its own, used as a person uses it: by commands and by the API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.postgres import free_port

PATIENCE_SECONDS = 900
"""Longest wait for a command or a flow run; busy machines take a minute for the imports alone."""
EVALUATED = ("image-text-sum", "cvsi")
"""Methods that the team has scored."""
PHOTOS = 6
"""Images that it has captioned."""
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class RunningStack:
    """A stack that is up.

    Attributes:
        home: Folder in which its runs work.
        repository: Where the packages are.
        port: Where the server listens.
    """

    home: Path
    repository: Path
    port: int

    @property
    def url(self) -> str:
        """Where the UI is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def root(self) -> Path:
        """Where the tables are kept by default."""
        return self.home / ".cirflow"

    def cirflow(self, *arguments: str) -> str:
        """Type a command in the home folder; returns what it printed."""
        # Prefect's settings of whoever runs the tests are none of this stack's.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        done = subprocess.run(
            [sys.executable, "-m", "deployments.cli", *arguments],
            cwd=self.home,
            env=environment | {"PYTHONPATH": str(self.repository)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, deployment: str, parameters: Mapping[str, Any]) -> str:
        """Start a run of FLOW/DEPLOYMENT; returns its id."""
        found = self._ask(f"deployments/name/{deployment}")
        run = self._ask(f"deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(run["id"])

    def wait(self, run: str) -> None:
        """Wait until a run has completed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            state = self._ask(f"flow_runs/{run}")["state"]
            if state["type"] in ENDS:
                break
            assert time.monotonic() < deadline, f"run {run} is still {state['name']}"
            time.sleep(1)
        assert state["type"] == "COMPLETED", f"run {run}: {state['name']}, {state['message']}"

    def run_names(self) -> list[str]:
        """Names of all runs that were ever asked for, those of schedules left out."""
        runs = self._ask("flow_runs/filter", {})
        return sorted(run["name"] for run in runs if not run["auto_scheduled"])

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if body is not None:  # what is posted comes with a token, as from the UI
            token = self._ask("csrf-token?client=test")["token"]
            headers |= {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "test"}
        request = urllib.request.Request(
            f"{self.url}/api/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers=headers,
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.loads(reply.read())


@contextmanager
def running_stack(home: Path, repository: Path) -> Iterator[RunningStack]:
    """Bring a stack up in a folder, and down at the end."""
    stack = RunningStack(home, repository, free_port())
    try:
        stack.cirflow("up", "--port", str(stack.port), "--gpus", "0")
        yield stack
    finally:
        stack.cirflow("down")
