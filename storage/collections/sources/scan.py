"""One stream of candidates from a whole source, which may mix kinds of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TypeAlias

from storage.collections.sources.candidates import (
    Candidate,
    Limits,
    SourceFault,
    fault,
    first_folder,
)
from storage.collections.sources.files import SourceFile, file_candidate
from storage.collections.sources.parquet import parquet_candidates
from storage.collections.sources.webdataset import tar_candidates
from storage.tables.keys import content_key

Reader: TypeAlias = Callable[[IO[bytes], str, str, Limits, str], Iterator[Candidate]]

CONTAINERS: dict[str, Reader] = {
    ".tar": tar_candidates,
    ".tar.gz": tar_candidates,
    ".tgz": tar_candidates,
    ".parquet": parquet_candidates,
}
"""Ending of a file name -> reader of the images inside. All other files should be one image."""


_ENDINGS = tuple(CONTAINERS)


@dataclass(frozen=True)
class ContainerEnd:
    """All candidates of a container have been yielded."""

    key: str


@dataclass(frozen=True)
class ContainerKnown:
    """A container that has not changed since it was ingested completely."""

    key: str


Event: TypeAlias = Candidate | ContainerEnd | ContainerKnown


def scan(
    files: list[SourceFile],
    source: str,
    limits: Limits,
    class_field: str,
    knows: Callable[[str], bool],
) -> Iterator[Event]:
    """Yield the candidates of all files in order; skip containers whose key `knows` confirms."""
    for file in files:
        reader = _reader(file.path)
        if reader is None or file.problem is not None:
            yield file_candidate(file, limits)
            continue
        key = content_key([source, file.path, file.size, file.stamp, class_field])
        if knows(key):
            yield ContainerKnown(key)
            continue
        try:
            with file.open() as content:
                yield from reader(content, file.path, key, limits, class_field)
        except OSError as error:
            # Not remembered as done: a disk or network may be back the next time.
            problem = SourceFault("unreadable", error.strerror or str(error))
            yield Candidate(file.path, key, first_folder(file.path), fault(problem))
        else:
            yield ContainerEnd(key)


def has_containers(files: list[SourceFile]) -> bool:
    """Tell whether a source has archives, so that its number of inputs is unknown until read."""
    return any(_reader(file.path) is not None for file in files)


def _reader(path: str) -> Reader | None:
    name = path.lower()
    if not name.endswith(_ENDINGS):
        return None
    return next(reader for ending, reader in CONTAINERS.items() if name.endswith(ending))
