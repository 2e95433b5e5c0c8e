"""`Location`: a local folder or an S3 prefix, as one small value that pickles and prints well."""

from __future__ import annotations

import builtins
import errno
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, BinaryIO

from storage.locations.stores import (
    CutRead,
    Entry,
    LocalStore,
    LocationError,
    NoRoom,
    S3Store,
    Store,
)

__all__ = ["CutRead", "Entry", "Location", "LocationError", "NoRoom", "takes_no_file"]

_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def takes_no_file(error: OSError) -> bool:
    """Whether a place refused a file for want of the right to write, or of room."""
    return isinstance(error, PermissionError | LocationError) or error.errno in _NO_PLACE


@dataclass(frozen=True)
class Location:
    """A root below which files are published, and the operations on them.

    Paths are relative to the root, use ``/``, and may not leave it.

    Attributes:
        root: an absolute local folder (a relative one, ``~`` and ``file://`` are resolved), or
            ``s3://bucket[/prefix]``. Credentials never belong here: S3 reads its endpoint and
            credentials from the environment only.

    Raises:
        ValueError: for another scheme, or an S3 URL without a bucket.
    """

    root: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", _normal_root(self.root))

    def __str__(self) -> str:
        return self.root

    @cached_property
    def _store(self) -> Store:
        if self.is_local:
            return LocalStore(Path(self.root))
        return S3Store(self.root)

    def __getstate__(self) -> dict[str, str]:
        return {"root": self.root}  # an open connection must not travel between processes

    @property
    def is_local(self) -> bool:
        """True on a file system, false on S3."""
        return not self.root.startswith("s3://")

    def child(self, *parts: str) -> Location:
        """Return the location of a folder below this one."""
        return Location(self.join(*parts))

    def join(self, *parts: str) -> str:
        """Return the full path or URL of a relative path, given in one or several parts."""
        return self._store.url(_checked("/".join(parts)))

    def local_path(self, path: str) -> Path | None:
        """Return the path on disk, or None on S3."""
        return Path(self.join(path)) if self.is_local else None

    def entries(self, prefix: str = "") -> builtins.list[Entry]:
        """List all files below a folder (one listing), sorted by path; empty if there is none."""
        entries = self._store.entries(_checked(prefix) if prefix else "")
        return sorted(entries, key=lambda entry: entry.path)

    def exists(self, path: str) -> bool:
        """Tell whether a file exists."""
        return self._store.exists(_checked(path))

    def size(self, path: str) -> int:
        """Return the size of a file in bytes.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self.stat(path).size

    def stat(self, path: str) -> Entry:
        """Return one file as `entries` would list it.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self._store.stat(_checked(path))

    def read_bytes(self, path: str) -> bytes:
        """Return the whole content of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self._store.read(_checked(path))

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        """Return the bytes from start to end of each range, fetched at the same time.

        Raises:
            FileNotFoundError: there is no such file.
            CutRead: fewer bytes came than were asked for, also when asked again.
        """
        return self.read_spans([(path, *each) for each in ranges])

    def read_spans(self, spans: Sequence[tuple[str, int, int]]) -> builtins.list[bytes]:
        """Return the bytes of spans (path, start, end) of any files, a few fetched at a time.

        Raises:
            FileNotFoundError: one of the files is not there.
            CutRead: fewer bytes came from S3 than were asked for, also when asked again.
        """
        return self._store.read_spans([(_checked(path), start, end) for path, start, end in spans])

    def open_read(self, path: str, *, sequential: bool = False) -> IO[bytes]:
        """Open a file for reading; `sequential` reads ahead, else each read is a request."""
        return self._store.open(_checked(path), sequential)

    def create(self, path: str, data: bytes) -> bool:
        """Publish a whole file once: true if this call did, false if the name already existed.

        Of any number of racing writers exactly one gets true. After a power cut or a SIGKILL the
        name either holds all of the data or does not exist.

        Raises:
            LocationError: the place cannot publish (no hard links; endless conflicts).
        """
        return self._store.create(_checked(path), data)

    def create_large(self, path: str, write: Callable[[BinaryIO], None]) -> bool:
        """Publish a local file as `create` does, written by a function that may also map it.

        Raises:
            LocationError: as `create`; or this is not a local folder.
        """
        return self._store.create_large(_checked(path), write)

    def leave(self, path: str, data: bytes) -> None:
        """Create a file that others do without: none where nothing can be written."""
        try:
            self.create(path, data)
        except OSError as error:
            if not takes_no_file(error):
                raise

    def replace(self, path: str, data: bytes) -> None:
        """Write a file over the old one, atomically: for pointers and reports, never for parts."""
        self._store.replace(_checked(path), data)

    def rename(self, path: str, new_path: str) -> None:
        """Give a file another, unused name (to put a broken part aside)."""
        self._store.rename(_checked(path), _checked(new_path))

    def remove(self, path: str) -> None:
        """Delete a file that only its own run reads, such as a finished training's state, if any.

        Nothing published is ever deleted: it is put aside first (see `storage.checks.cleaning`).
        """
        self._store.remove(_checked(path))

    def staged(self) -> builtins.list[Entry]:
        """List files that writers have not finished, or left when they were killed."""
        return sorted(self._store.staged(), key=lambda entry: entry.path)

    def probe(self) -> str:
        """Check that publish-once works here; return the fault in words, or "" if all is well.

        Some S3-compatible servers ignore the condition of a PUT, and some mounts have no hard
        links: there two workers could overwrite each other. Leaves nothing behind.
        """
        token = uuid.uuid4().hex
        path = f"probe/{token}"
        try:
            if not self.create(path, token.encode()) or self.create(path, b"overwritten"):
                return f"{self.root} lets a second writer overwrite a published file"
            if self.read_bytes(path) != token.encode():
                return f"{self.root} does not return what was written to it"
            self._store.remove(path)
        except OSError as error:
            return f"{self.root} cannot be used: {error}"
        return ""

    def list(self, prefix: str = "") -> builtins.list[str]:
        """Return the sorted paths of all files below a folder (one listing)."""
        return [entry.path for entry in self.entries(prefix)]


def _normal_root(root: str) -> str:
    if not isinstance(root, str) or not root:
        raise ValueError(f"a location is a folder or an s3:// URL, not {root!r}")
    scheme, separator, rest = root.partition("://")
    if not separator or scheme == "file":
        path = rest if separator else root
        return str(Path(path).expanduser().absolute())
    if scheme != "s3":
        raise ValueError(f"a location is a local folder or s3://bucket/prefix, not {scheme}://...")
    bucket = rest.split("/")[0]
    if not bucket or "@" in bucket or ":" in bucket:
        raise ValueError(
            "an S3 location reads s3://bucket/prefix; endpoint and credentials belong in the"
            " environment (AWS_ENDPOINT_URL, AWS_PROFILE, ...)"
        )
    return "s3://" + rest.rstrip("/")


def _checked(path: str) -> str:
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ValueError(f"{path!r} is not a path below the root: no '..', no empty part, no '/x'")
    return path
