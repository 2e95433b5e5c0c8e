"""The near end of a forking process whose workers a test kills; see `caption_backfill.serve`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tasks.settings import Profile


class Workers:
    """The forking process, and the log of all shards that its workers ever began."""

    def __init__(
        self, module: str, profile: Profile, argument: str, log: Path, repository: Path
    ) -> None:
        """Start `python -m MODULE PROFILE_JSON ARGUMENT LOG`; it says when it is ready."""
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, profile.model_dump_json(), argument, str(log)],
            cwd=repository,
            env=os.environ | {"PREFECT_LOGGING_LEVEL": "CRITICAL"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready\n"

    def run(
        self, root: str, workers: int = 1, kill: dict[str, float] | None = None
    ) -> dict[str, Any]:
        """Let some workers run at once; kill them some shards and seconds on, if asked to."""
        assert self._process.stdin is not None
        command = {"root": root, "workers": workers, "kill": kill}
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._answer())

    def begun(self, root: str) -> list[dict[str, Any]]:
        """All shards that were begun at a root, in order: process and members."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in lines if line["root"] == root]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(120) == 0

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()
