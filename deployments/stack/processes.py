"""Background processes by name: started once, found again, and stopped by whoever asks.

A record on disk holds the process id and the moment the process began, so that a process id that
was given to somebody else in the meantime is never mistaken for ours.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

STOP_SECONDS = 20.0
"""Time a process gets to end by itself before it is killed."""


@dataclass(frozen=True)
class ProcessFolder:
    """Records and logs of the processes that one stack started."""

    path: Path

    def _record(self, name: str) -> Path:
        return self.path / f"{name}.json"

    def log(self, name: str) -> Path:
        """Where the output of a process goes."""
        return self.path / f"{name}.log"

    def names(self) -> list[str]:
        """Every process that was started here and not yet taken off the records, sorted."""
        return sorted(file.stem for file in self.path.glob("*.json"))

    def running(self, name: str) -> psutil.Process | None:
        """The process of that name, if it is alive and ours."""
        try:
            record = json.loads(self._record(name).read_text(encoding="utf-8"))
            process = psutil.Process(int(record["pid"]))
            same = abs(process.create_time() - float(record["began"])) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None

    def command(self, name: str) -> list[str]:
        """What was started under that name; empty if nothing was."""
        try:
            record = json.loads(self._record(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [str(word) for word in record.get("command", [])]

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> bool:
        """Start a process in a session of its own, unless it runs already; True if it was started.

        Args:
            name: Name of its record and log.
            command: What to run.
            environment: Its whole environment.
            folder: Its working directory.
        """
        if self.running(name) is not None:
            return False
        self.path.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            began = psutil.Process(child.pid).create_time()
        except psutil.NoSuchProcess as error:
            raise OSError(f"{name} ended at once; see {self.log(name)}") from error
        record = {"pid": child.pid, "began": began, "command": list(command)}
        temporary = self._record(name).with_suffix(".tmp")
        temporary.write_text(json.dumps(record), encoding="utf-8")
        temporary.replace(self._record(name))
        return True

    def stop(self, name: str) -> bool:
        """End a process and everything below it; True if it was running."""
        process = self.running(name)
        if process is not None:
            _end([process, *process.children(recursive=True)])
        self._record(name).unlink(missing_ok=True)
        return process is not None


def _end(processes: Sequence[psutil.Process]) -> None:
    """Ask all to end, parents first, then kill what is left."""
    for process in processes:
        _signal(process, kill=False)
    _, left = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in left:
        _signal(process, kill=True)
    psutil.wait_procs(left, timeout=STOP_SECONDS)


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return
