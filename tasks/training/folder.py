"""The state of an unfinished training on disk, from which another process resumes it."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from models.user_cache import user_cache_folder
from storage.locations.location import Location

CHECKPOINT: Final = "state.ckpt"
HISTORY: Final = "history.json"
SLOTS: Final = ("weights-a.safetensors", "weights-b.safetensors")
_PICTURES: Final = "pictures-"
_LOCK: Final = "lock"


class TrainingHeld(RuntimeError):
    """Another process trains in the folder; the message names it and says what to do."""


@dataclass
class History:
    """The curves of a run, and which weights are kept.

    Attributes:
        points: One row for each logged step.
        validations: One row for each validation.
        kept: Step of the kept weights, and the file they lie in.
        done: Whether the last step was taken.
        seconds: Wall time of the steps so far, which no comparison of two runs counts.
        waited: Seconds of them in which the first process waited for its batches.
    """

    points: list[dict[str, float]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)
    done: bool = False
    seconds: float = field(default=0.0, compare=False)
    waited: float = field(default=0.0, compare=False)

    @property
    def summary(self) -> dict[str, Any]:
        """The step whose weights are kept, the steps in all, and the validation at that step."""
        kept = int(self.kept["step"])
        return {
            "step": kept,
            "steps": int(self.points[-1]["step"]),
            "validation": next((v for v in self.validations if v["step"] == kept), {}),
        }


@dataclass(frozen=True)
class TrainingFolder:
    """A folder of files that are replaced whole, kept below a root that may be on S3.

    On a local root it is a folder of the root; for S3 a local copy in the user's cache folder
    ($XDG_CACHE_HOME or ~/.cache), which `fetch` fills.

    Attributes:
        root: where training is kept.
        folder: relative to the root.
    """

    root: str
    folder: str

    @property
    def path(self) -> Path:
        """The local folder; it may not exist yet."""
        local = Location(self.root).local_path(self.folder)
        return local or user_cache_folder() / self.folder

    def make(self) -> None:
        """Make the local folder; one outside the root is closed to other users."""
        if not Location(self.root).is_local:
            user_cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)

    def fetch(self) -> None:
        """Bring the state of an earlier run from S3 to this machine."""
        self.make()
        location = Location(self.root)
        if location.is_local:
            return
        for name in (*SLOTS, HISTORY, CHECKPOINT):
            if location.exists(f"{self.folder}/{name}"):
                self._put(name, location.read_bytes(f"{self.folder}/{name}"))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out; the system lets go of it for a process that is killed.

        Raises:
            TrainingHeld: another process holds the folder.
        """
        self.make()
        with (self.path / _LOCK).open("a+", encoding="utf-8") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # POSIX allows either
                file.seek(0)
                raise TrainingHeld(
                    f"{file.read() or 'another process'} is training in {self.path}. Wait for "
                    "its end, then run again to reuse the network; or end that process first: "
                    "this one then resumes from its last saved state"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            yield

    def clear(self) -> None:
        """Remove state, kept weights and pictures, which are large; history and logs stay."""
        location = Location(self.root)
        for name in (CHECKPOINT, *SLOTS):
            (self.path / name).unlink(missing_ok=True)
            location.remove(f"{self.folder}/{name}")
        for path in self._pictures():
            path.unlink(missing_ok=True)

    def pictures(self, key: str) -> Path:
        """The local file of decoded pictures that has a key; those of other keys are removed."""
        self.make()
        file = self.path / f"{_PICTURES}{key}"
        for other in self._pictures():
            if other != file:
                other.unlink(missing_ok=True)
        return file

    def _pictures(self) -> list[Path]:
        """Also what a process that was killed left unfinished."""
        return [*self.path.glob(f"{_PICTURES}*"), *self.path.glob(f".{_PICTURES}*")]

    def file(self, name: str) -> Path | None:
        """A file of the folder, or None if there is none."""
        path = self.path / name
        return path if path.is_file() else None

    def commit(self, staged: Path, name: str) -> None:
        """Move a file that was written next to `name` into its place, at once."""
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        staged.replace(self.path / name)
        location = Location(self.root)
        if not location.is_local:
            location.replace(f"{self.folder}/{name}", (self.path / name).read_bytes())

    def staged(self, name: str) -> Path:
        """Where to write a file before `commit`."""
        return self.path / f".{name}.new"

    def write_history(self, history: History) -> None:
        """Replace the history."""
        staged = self.staged(HISTORY)
        staged.write_text(json.dumps(asdict(history)) + "\n", encoding="utf-8")
        self.commit(staged, HISTORY)

    def finished(self) -> History | None:
        """The history of a training that took its last step and whose weights are there."""
        path = self.file(HISTORY)
        if path is None:
            return None
        history = History(**json.loads(path.read_text(encoding="utf-8")))
        return history if history.done and self.file(history.kept["file"]) else None

    def _put(self, name: str, data: bytes) -> None:
        staged = self.staged(name)
        staged.write_bytes(data)
        staged.replace(self.path / name)
