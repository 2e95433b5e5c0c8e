"""The two kinds of store: a local folder and a prefix in an S3 bucket.

Both offer the same few operations. The one that matters is `create`: it publishes a whole file
under a name that did not exist, or reports that it did; no reader ever sees half of it, and of
several writers exactly one wins. Locally that is a hard link from a finished temporary file, on S3
a PUT with ``If-None-Match: *``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, TypeVar, cast

import fsspec

from storage.locations.entries import STAGING, Entry
from storage.locations.local_files import entry_of, require_regular, walk
from storage.words import agreed

T = TypeVar("T")

IN_FLIGHT = 16
"""Requests that one reader has in flight on S3."""

MAX_OBJECT_BYTES = 5 * 2**30
"""Largest single PUT of S3. Multi-part uploads are not used: see `S3Store.create`."""


class LocationError(OSError):
    """A store lacks an operation that publishing needs; the message says what to do about it."""


class NoRoom(LocationError):
    """A disk or a quota is full, or became read-only: it takes no file until somebody mends it."""


_REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EROFS: "make it writable",
}
"""What ends a fault that every later file would meet as well."""


class CutRead(ConnectionError):
    """A file came incomplete or changed over the network, also when it was asked for again."""

    def __init__(self, url: str, what: str) -> None:
        super().__init__(
            f"{url} did not come whole: {what}. The file itself may be: run the same command again,"
            " then `cirflow cache verify`"
        )
        self.url = url
        self.what = what

    def __reduce__(self) -> tuple[type[CutRead], tuple[str, str]]:
        return type(self), (self.url, self.what)


class Store(Protocol):
    """The operations that a store offers; paths are checked, relative, and use ``/``."""

    def url(self, path: str) -> str:
        """Return the full name of a path, for messages and for other readers."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """List the files below a folder, recursively, in any order."""

    def exists(self, path: str) -> bool:
        """Tell whether a file exists."""

    def stat(self, path: str) -> Entry:
        """Return one file as it would be listed."""

    def read(self, path: str) -> bytes:
        """Return the whole content of a file."""

    def read_spans(self, spans: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Return the bytes of some spans: a path, a start, and the end before which it ends."""

    def open(self, path: str, sequential: bool) -> IO[bytes]:
        """Open a file for reading, hinting at the pattern of access."""

    def create(self, path: str, data: bytes) -> bool:
        """Publish a file once; false if the name was taken."""

    def create_large(self, path: str, write: Callable[[BinaryIO], None]) -> bool:
        """Publish a file once that is written piece by piece; false if the name was taken."""

    def replace(self, path: str, data: bytes) -> None:
        """Write a file atomically, over the old one if there is one."""

    def rename(self, path: str, new_path: str) -> None:
        """Give a file another name."""

    def remove(self, path: str) -> None:
        """Delete a probe or a run's own working state, if it is there; never a published file."""

    def staged(self) -> Iterator[Entry]:
        """List the unfinished files of writers, living or dead."""


class LocalStore:
    """A folder of a local (or mounted) file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def url(self, path: str) -> str:
        """Return the absolute path."""
        return str(self.root / path)

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Walk the folder; files that vanish meanwhile are left out."""
        return walk(self.root, prefix)

    def exists(self, path: str) -> bool:
        """Tell whether a regular file exists."""
        return (self.root / path).is_file()

    def stat(self, path: str) -> Entry:
        """Return the size and modification time."""
        return entry_of(self.root / path, path)

    def read(self, path: str) -> bytes:
        """Return the whole content."""
        target = self.root / path
        try:
            with open(os.open(target, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return file.read()
        except OSError:
            require_regular(target)  # says what it is, if it is not a file
            raise
        require_regular(target)
        raise OSError(errno.EAGAIN, "it changed while it was opened", str(target))

    def read_spans(self, spans: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Open each file once for spans that follow each other."""
        found = []
        for path, group in itertools.groupby(spans, lambda span: span[0]):
            with self.open(path, sequential=False) as file:
                for _, start, end in group:
                    found.append(os.pread(file.fileno(), end - start, start))
        return found

    def open(self, path: str, sequential: bool) -> IO[bytes]:
        """Open for reading."""
        require_regular(self.root / path)
        return (self.root / path).open("rb")

    def create(self, path: str, data: bytes) -> bool:
        """Write a temporary file, make it durable, then link it to its name if that is free."""

        def write(file: BinaryIO) -> None:
            file.write(data)

        return self.create_large(path, write)

    def create_large(self, path: str, write: Callable[[BinaryIO], None]) -> bool:
        """Create what a function writes into the temporary file, which it may also map."""
        target = self.root / path
        if os.path.lexists(target):
            return False
        with self._with_room(), self._staged(target, write) as temporary:
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV):
                    raise LocationError(
                        f"{self.root} cannot publish files: its file system has no hard links"
                        f" ({error.strerror}). Use another folder, or an s3:// location"
                    ) from error
                raise
        _sync_folder(target.parent)
        return True

    def replace(self, path: str, data: bytes) -> None:
        """Write a temporary file and rename it over the old one."""
        target = self.root / path
        with self._with_room(), self._staged(target, lambda f: f.write(data)) as temporary:
            temporary.replace(target)
        _sync_folder(target.parent)

    def rename(self, path: str, new_path: str) -> None:
        """Rename; the new name is one that nobody else uses, and its time is now."""
        target = self.root / new_path
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).rename(target)
        os.utime(target, follow_symlinks=False)

    def remove(self, path: str) -> None:
        """Delete a file."""
        (self.root / path).unlink(missing_ok=True)

    def staged(self) -> Iterator[Entry]:
        """List temporary files."""
        for path in (self.root / STAGING).glob("*"):
            with contextlib.suppress(FileNotFoundError):
                yield self.stat(f"{STAGING}/{path.name}")

    @contextlib.contextmanager
    def _staged(self, target: Path, write: Callable[[BinaryIO], object]) -> Iterator[Path]:
        """A temporary file that is whole, once there is a folder for its name to be."""
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = self.root / STAGING
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / uuid.uuid4().hex
        try:
            with temporary.open("x+b") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _with_room(self) -> Iterator[None]:
        """Tell a full disk, also one without names for folders and files, from other faults."""
        try:
            yield
        except OSError as error:
            if (remedy := _REMEDIES.get(error.errno or 0)) is None:
                raise
            raise NoRoom(
                f"{self.root} takes no more files ({error.strerror}): {remedy} and run again; "
                "what was published stands"
            ) from error


class S3Store:
    """A prefix of an S3 bucket, through s3fs.

    Endpoint, region and credentials come from the environment and the usual AWS files alone
    (``AWS_ENDPOINT_URL``, ``AWS_PROFILE``, ``AWS_ACCESS_KEY_ID``, ...), so that they can never
    end up in a parameter, a spec or a log.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    @property
    def _files(self) -> Any:
        # Instances are cached by fsspec, per process and thread. Listings must not be cached,
        # because other workers publish while we look.
        return fsspec.filesystem("s3", use_listings_cache=False)

    def url(self, path: str) -> str:
        """Return the s3:// URL."""
        return f"{self.root}/{path}" if path else self.root

    def entries(self, prefix: str) -> Iterator[Entry]:
        """List the objects below a prefix; keys that end in ``/`` are folder markers, not files."""
        start = self.root.removeprefix("s3://") + "/"
        found = self._files.find(self.url(prefix), detail=True)
        for name, info in found.items():
            # An object that is itself named like the prefix is not below it.
            if info["type"] == "file" and name.startswith(start) and not name.endswith("/"):
                yield _s3_entry(name.removeprefix(start), info)

    def exists(self, path: str) -> bool:
        """Tell whether an object exists: one request, without a look for a folder of the name."""
        bucket, key, _ = self._files.split_path(self.url(path))
        try:
            self._files.call_s3("head_object", Bucket=bucket, Key=key)
        except (FileNotFoundError, PermissionError):
            return False
        return True

    def stat(self, path: str) -> Entry:
        """Return the size and ETag."""
        return _s3_entry(path, self._files.info(self.url(path)))

    def read(self, path: str) -> bytes:
        """Return the whole object."""
        # one GET: s3fs leaves zeros where one of several came short
        return _whole(
            self.url(path),
            lambda: cast(bytes, self._files.cat_file(self.url(path), max_concurrency=1)),
        )

    def read_spans(self, spans: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Send a GET for each span, several at a time."""
        if not spans:
            return []
        paths, starts, ends = (list(each) for each in zip(*spans, strict=True))
        urls = [self.url(path) for path in paths]
        get = functools.partial(
            self._files.cat_ranges, urls, starts, ends, batch_size=IN_FLIGHT, on_error="raise"
        )
        found: list[bytes] = _whole(urls[0], get)
        for url, start, end, data in zip(urls, starts, ends, found, strict=True):
            if len(data) != end - start:
                came = f"{len(data)} {agreed(len(data), 'byte')}"
                what = f"{came} came for {end - start} from byte {start} on"
                raise CutRead(url, what)
        return found

    def open(self, path: str, sequential: bool) -> IO[bytes]:
        """Open an object; without `sequential`, each read is one request for just its range."""
        cache = (
            {"cache_type": "readahead", "block_size": 8 * 2**20}
            if sequential
            else {"cache_type": "none"}
        )
        return cast("IO[bytes]", self._files.open(self.url(path), "rb", **cache))

    def create(self, path: str, data: bytes) -> bool:
        """Send one conditional PUT; false where the name was taken.

        Always a single PUT: it is atomic and leaves nothing behind when the writer is killed,
        while not every S3-compatible server honours the condition at the end of a multi-part
        upload.

        Raises:
            ValueError: above 5 GiB, the limit of a single PUT.
            LocationError: other writers kept the name in conflict.
        """
        if len(data) >= MAX_OBJECT_BYTES:
            raise ValueError(f"{self.url(path)} has {len(data)} bytes; S3 takes up to 5 GiB a part")
        for attempt in range(6):
            try:
                self._files.pipe_file(
                    self.url(path), data, mode="create", chunksize=MAX_OBJECT_BYTES
                )
            except FileExistsError:
                return False
            except OSError as error:
                if not _is_conflict(error):
                    raise
                # Another conditional write of this name was in flight: S3 asks us to try again,
                # and will then say whether the other one came through.
                time.sleep(0.05 * 2**attempt)
            else:
                return True
        raise LocationError(f"{self.url(path)} stayed in conflict with another writer; try again")

    def create_large(self, path: str, write: Callable[[BinaryIO], None]) -> bool:
        """Refuse: such files are for mapping, which needs a disk."""
        raise LocationError(f"{self.url(path)} would be mapped; it belongs on a local disk")

    def replace(self, path: str, data: bytes) -> None:
        """Overwrite with one PUT, which readers see whole or not at all."""
        self._files.pipe_file(self.url(path), data, chunksize=MAX_OBJECT_BYTES)

    def rename(self, path: str, new_path: str) -> None:
        """Copy, then drop the old name (S3 has no rename)."""
        self._files.mv(self.url(path), self.url(new_path))

    def remove(self, path: str) -> None:
        """Delete a file."""
        self._files.rm_file(self.url(path))

    def staged(self) -> Iterator[Entry]:
        """None: a killed PUT leaves nothing."""
        return iter(())


def _s3_entry(path: str, info: Mapping[str, Any]) -> Entry:
    stamp = str(info.get("ETag") or info.get("LastModified") or "").strip('"')
    changed = info.get("LastModified")
    return Entry(path, int(info["size"]), stamp, changed.timestamp() if changed else 0.0)


def _whole(url: str, read: Callable[[], T]) -> T:
    """Read, again where a checksum differs; name the file where it does not come whole.

    s3fs has tried a lost connection again, but not an answer whose checksum is not its own.
    """
    import aiohttp
    from botocore.exceptions import FlexibleChecksumError
    from s3fs.core import S3_RETRYABLE_ERRORS

    for left in reversed(range(3)):
        try:
            return read()
        except FlexibleChecksumError as error:
            if not left:
                raise CutRead(url, str(error)) from error
        except (*S3_RETRYABLE_ERRORS, aiohttp.ClientError) as error:
            raise CutRead(url, str(error) or type(error).__name__) from error
    raise AssertionError("a loop of at least one attempt returns or raises")


def _is_conflict(error: OSError) -> bool:
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in ("ConditionalRequestConflict", "409")


def _sync_folder(folder: Path) -> None:
    # A new name survives a power cut only when its folder was synced too.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
