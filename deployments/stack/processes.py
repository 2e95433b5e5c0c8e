"""Background processes by name: started once, found again, and stopped.

A record on disk holds the process id and the time of the start, so that another process with the
same id is never mistaken for ours. It is begun before the process: a process whose starter was
killed before it could note the id is known by a mark in its environment. Each process leads a
session: its children are found by the session even after the process itself was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

STOP_SECONDS = 20.0
"""Time that a process gets to end before it is killed."""
MARK = "CIRFLOW_STARTED_AS"
"""Variable of a process that was started: the mark of its record."""


@dataclass(frozen=True)
class ProcessFolder:
    """Records and logs of the processes that one stack started."""

    path: Path

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.json"

    def _record(self, name: str) -> dict[str, Any]:
        try:
            record = json.loads(self._file(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(record, dict):
            return {}
        if "pid" not in record and (found := _marked(str(record.get("mark")))):
            record |= _identity(found)
        return record

    def _write(self, name: str, record: Mapping[str, Any]) -> None:
        temporary = self._file(name).with_suffix(".tmp")
        temporary.write_text(json.dumps(record), encoding="utf-8")
        temporary.replace(self._file(name))

    @contextmanager
    def alone(self, say: Callable[[str], None]) -> Iterator[None]:
        """Keep other commands from starting and stopping here; waits for one that is at it.

        The lock ends with this process, however that ends; no child inherits it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another `cirflow up` or `cirflow down` is at work here; waiting for its end")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def log(self, name: str) -> Path:
        """File of a process's output."""
        return self.path / f"{name}.log"

    def names(self) -> list[str]:
        """Every process that was started here and not yet taken off the records, sorted."""
        return sorted(file.stem for file in self.path.glob("*.json"))

    def running(self, name: str) -> psutil.Process | None:
        """The process of that name, if it is alive and ours."""
        record = self._record(name)
        try:
            process = psutil.Process(int(record["pid"]))
            same = abs(process.create_time() - float(record["began"])) < 1.0
            return process if same and _is_alive(process) else None
        except (ValueError, KeyError, TypeError, psutil.Error):
            return None

    def command(self, name: str) -> list[str]:
        """The command that was started under that name; empty without one."""
        return [str(word) for word in self._record(name).get("command", [])]

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
    ) -> bool:
        """Start a process in a session of its own, unless it runs already; True if it was started.

        Args:
            name: Name of its record and log.
            command: Command line.
            environment: Its whole environment; not recorded.
            folder: Its working directory.
        """
        if self.running(name) is not None:
            return False
        self.path.mkdir(parents=True, exist_ok=True)
        record = {"command": list(command), "mark": secrets.token_hex(16)}
        self._write(name, record)
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                command,
                env={**environment, MARK: str(record["mark"])},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._write(name, record | _identity(psutil.Process(child.pid)))
        except psutil.NoSuchProcess as error:
            raise OSError(f"{name} ended at once; see {self.log(name)}") from error
        return True

    def stop(self, name: str) -> bool:
        """End a process and everything that it started; True if any of it was running."""
        processes = self._session(name)
        _end(processes)
        self._file(name).unlink(missing_ok=True)
        return bool(processes)

    def _session(self, name: str) -> list[psutil.Process]:
        """The living processes of a session, its leader first.

        No process id is given away while a session bears it. So if the id belongs to a process
        that began later, nothing of the session is left.
        """
        record = self._record(name)
        try:
            leader, began = int(record["pid"]), float(record["began"])
        except (ValueError, KeyError, TypeError):
            return []
        members = [process for process in psutil.process_iter() if _session_of(process) == leader]
        if any(p.pid == leader and p.create_time() > began + 1.0 for p in members):
            return []
        return sorted(filter(_is_alive, members), key=lambda process: process.pid != leader)


def _identity(process: psutil.Process) -> dict[str, Any]:
    """What tells a process from all others that had or will have its id."""
    return {"pid": process.pid, "began": process.create_time()}


def _marked(mark: str) -> psutil.Process | None:
    """The leader of a session that was started with a mark."""
    for process in psutil.process_iter():
        try:
            if _session_of(process) == process.pid and process.environ().get(MARK) == mark:
                return process
        except psutil.Error:  # it ended, or is another user's
            continue
    return None


def _session_of(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except OSError:  # it ended, or is not ours to look at
        return 0


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _end(processes: Sequence[psutil.Process]) -> None:
    """Ask all to end, then kill the remaining ones."""
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
    except psutil.AccessDenied as error:
        raise PermissionError(
            f"process {process.pid} belongs to {process.username()}: stop it as that user"
        ) from error
