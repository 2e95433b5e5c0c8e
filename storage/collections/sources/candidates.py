"""Candidates, which every kind of source yields: each becomes one row, readable or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class SourceFault(Exception):
    """An input gave no bytes: a `status` for its row, and a `reason` for people."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """Bounds on one input.

    Attributes:
        max_pixels: of an image, by its header.
        max_bytes: of a file or archive member; larger ones become rows without being read.
    """

    max_pixels: int
    max_bytes: int

    def check_bytes(self, size: int) -> None:
        """Refuse a file that is too large.

        Raises:
            SourceFault: ``too_large``.
        """
        if size > self.max_bytes:
            raise SourceFault("too_large", f"{size} bytes; the limit is {self.max_bytes}")


@dataclass(frozen=True)
class Candidate:
    """One input.

    Attributes:
        path: where it lies below the source, as valid text; ``archive.tar!member`` in a container.
        stamp: changes when the input changes (size and time, ETag, place in the container).
        meta_class: class from the first folder level or from metadata; "" if there is none.
        load: returns the bytes, or raises SourceFault.
        container: key of the archive it came from; "" for a file of its own.
    """

    path: str
    stamp: str
    meta_class: str
    load: Callable[[], bytes]
    container: str = ""


def fault(error: SourceFault) -> Callable[[], bytes]:
    """Return a `load` that raises a fault found earlier."""

    def load() -> bytes:
        raise error

    return load


def given(data: bytes) -> Callable[[], bytes]:
    """Return a `load` of bytes that were read before."""
    return lambda: data


def first_folder(path: str) -> str:
    """Return the first folder level of a relative path, or "" for a file at the top."""
    folders = [part for part in path.split("/")[:-1] if part not in ("", ".", "..")]
    return folders[0] if folders else ""


def is_hidden(path: str) -> bool:
    """Tell whether a path or a folder on it is hidden (``.DS_Store``, ``._x``, ``__MACOSX``)."""
    parts = [part for part in path.split("/") if part not in (".", "..")]
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
