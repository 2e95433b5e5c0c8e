"""List the files of a source: a local folder or file, an S3 prefix or object."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from storage.collections.sources.candidates import (
    Candidate,
    Limits,
    SourceFault,
    fault,
    first_folder,
    is_hidden,
)
from storage.locations.location import Location
from storage.text import valid_text


@dataclass(frozen=True)
class SourceFile:
    """One listed file; a file with a `problem` is not read.

    Without a `meta_class` the class is the first folder level.
    """

    location: Location
    raw_path: str
    size: int
    stamp: str
    problem: SourceFault | None = None
    meta_class: str | None = None

    @cached_property
    def path(self) -> str:
        """The relative path as valid text."""
        return valid_text(self.raw_path)

    def open(self) -> IO[bytes]:
        """Open for streaming from front to back."""
        return self.location.open_read(self.raw_path, sequential=True)


class MissingSource(FileNotFoundError):
    """There is nothing at a source."""


def list_files(source: Location, exclude: Location | None = None) -> list[SourceFile]:
    """List a source by path: one listing, without hidden files and without the folder `exclude`.

    Raises:
        MissingSource: there is no such folder or file, or no object below the prefix.
        ValueError: the source is the excluded folder itself.
    """
    if exclude == source:
        raise ValueError(f"{source} is where collections are kept; it cannot be a source of one")
    if source.is_local:
        path = Path(source.root)
        if not path.exists():
            raise MissingSource(f"there is no folder or file {source.root}")
        skip = Path(exclude.root) if exclude is not None and exclude.is_local else None
        if path.is_file():
            found = [_local_file(Location(str(path.parent)), path, path.name)]
        else:
            found = list(_walk(source, path, skip))
    else:
        found = _objects(source, exclude)
    return sorted(found, key=lambda file: file.path)


def _objects(source: Location, exclude: Location | None) -> list[SourceFile]:
    # The folder to leave out, relative to the source; no path begins like one that lies elsewhere.
    skipped = f"{exclude.root if exclude else ''}/".removeprefix(f"{source.root}/")
    found = [
        SourceFile(source, entry.path, entry.size, entry.stamp)
        for entry in source.entries()
        if not is_hidden(entry.path) and not entry.path.startswith(skipped)
    ]
    parent, _, name = source.root.rpartition("/")
    if not found and len(parent) > len("s3://") and Location(parent).exists(name):
        entry = Location(parent).stat(name)
        return [SourceFile(Location(parent), name, entry.size, entry.stamp)]
    if not found:
        raise MissingSource(f"there is no object {source.root} and none below it")
    return found


def _walk(source: Location, root: Path, skip: Path | None) -> Iterator[SourceFile]:
    folders, skipped = [root], str(skip)
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raw = folder.relative_to(root).as_posix()
            yield SourceFile(source, raw, 0, "folder", _unreadable(error))
            continue
        below = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        for entry in entries:
            if is_hidden(entry.name) or entry.path == skipped:
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            else:
                yield _local_file(source, entry, below + entry.name)


def _local_file(source: Location, path: Path | os.DirEntry[str], raw: str) -> SourceFile:
    try:
        status = path.stat()  # first: it refuses broken links and loops
        linked = path.is_symlink()
        problem = _link_problem(Path(source.root), Path(path)) if linked else None
    except OSError as error:
        return SourceFile(source, raw, 0, "unreadable", _unreadable(error))
    if problem is None and not stat.S_ISREG(status.st_mode):
        problem = SourceFault("not_a_file", "a pipe, socket or device is not read")
    if problem is not None:  # size and time belong to the link's target or to a device
        return SourceFile(source, raw, 0, problem.status, problem)
    return SourceFile(source, raw, status.st_size, str(status.st_mtime_ns))


def _link_problem(root: Path, path: Path) -> SourceFault | None:
    target = path.resolve()
    if not target.is_relative_to(root.resolve()):
        return SourceFault("outside_source", "the link leads out of the source folder")
    if target.is_dir():
        return SourceFault("linked_folder", "links to folders are not followed")
    return None


def _unreadable(error: OSError) -> SourceFault:
    return SourceFault("unreadable", error.strerror or str(error))


def file_candidate(file: SourceFile, limits: Limits) -> Candidate:
    """Return the candidate of a file that is (or should be) one image."""

    def load() -> bytes:
        limits.check_bytes(file.size)
        try:
            return file.location.read_bytes(file.raw_path)
        except OSError as error:
            raise _unreadable(error) from error

    return Candidate(
        path=file.path,
        stamp=f"{file.size}:{file.stamp}",
        meta_class=first_folder(file.path) if file.meta_class is None else file.meta_class,
        load=load if file.problem is None else fault(file.problem),
    )
