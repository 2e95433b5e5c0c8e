"""Images in tar archives: plain ones, and webdataset's samples of files that share a name.

Nothing is ever extracted to disk, so hostile member names are only text. A member is one candidate,
except metadata that lies next to an image (``.json``, ``.cls``, ``.txt``, ...).
"""

from __future__ import annotations

import json
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Self

from storage.collections.sources.candidates import (
    Candidate,
    Limits,
    SourceFault,
    fault,
    first_folder,
    given,
    is_hidden,
)
from storage.text import valid_text

_METADATA = frozenset(
    {"json", "jsonl", "cls", "txt", "text", "caption", "csv", "tsv", "yaml", "yml", "xml"}
    | {"npy", "npz", "pt", "pth", "pyd", "pickle", "ten", "index"}
)
_MAX_METADATA_BYTES = 2**20
_MAX_SAMPLE_FILES = 64
_DAMAGE = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)

_END_OF_ARCHIVE: type[Exception] = tarfile.EOFHeaderError  # type: ignore[attr-defined]


class _StrictTarInfo(tarfile.TarInfo):
    """Reports a header that is cut off or damaged, where tarfile would end quietly."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if isinstance(error, _END_OF_ARCHIVE):
                raise
            raise tarfile.ReadError(f"no end-of-archive mark ({error})") from error


@dataclass(frozen=True)
class _Member:
    name: str
    index: int
    data: bytes
    problem: SourceFault | None = None

    @property
    def sample(self) -> str:
        """Webdataset's key: the path up to the first dot of the file name."""
        folder, _, name = self.name.rpartition("/")
        return f"{folder}/{name.split('.')[0]}"

    @property
    def extension(self) -> str:
        """The text after the first dot of the file name."""
        return self.name.rpartition("/")[2].partition(".")[2].lower()

    @property
    def is_metadata(self) -> bool:
        """True for the companions of an image."""
        return self.extension.rpartition(".")[2] in _METADATA


def tar_candidates(
    file: IO[bytes], name: str, container: str, limits: Limits, class_field: str
) -> Iterator[Candidate]:
    """Stream the members of a tar (gz, bz2 and xz too) as candidates.

    A tar that is cut off or damaged yields its readable members, then one candidate of its own
    with the fault ``truncated_archive``.
    """
    sample: list[_Member] = []
    last = "its first member"
    try:
        with tarfile.open(fileobj=file, mode="r|*", tarinfo=_StrictTarInfo) as archive:
            for index, info in enumerate(archive):
                last = valid_text(info.name)
                member = _read_member(archive, info, index, limits)
                if member is None:
                    continue
                if sample and (
                    member.sample != sample[0].sample or len(sample) >= _MAX_SAMPLE_FILES
                ):
                    yield from _candidates(sample, name, container, class_field)
                    sample = []
                sample.append(member)
    except _DAMAGE as error:
        yield from _candidates(sample, name, container, class_field)
        reason = f"the archive is cut off or damaged at or after {last}: {error}"
        problem = fault(SourceFault("truncated_archive", reason))
        yield Candidate(name, container, first_folder(name), problem, container)
    else:
        yield from _candidates(sample, name, container, class_field)


def _read_member(
    archive: tarfile.TarFile, info: tarfile.TarInfo, index: int, limits: Limits
) -> _Member | None:
    name = valid_text(info.name)
    if info.isdir() or is_hidden(name):
        return None
    if not info.isreg():
        problem = SourceFault("not_a_file", "a link or device in an archive is not followed")
        return _Member(name, index, b"", problem)
    try:
        limits.check_bytes(info.size)
    except SourceFault as error:
        return _Member(name, index, b"", error)
    content = archive.extractfile(info)
    data = content.read() if content is not None else b""
    if len(data) != info.size:
        raise tarfile.ReadError(f"{len(data)} of {info.size} bytes")
    return _Member(name, index, data)


def _candidates(
    sample: list[_Member], name: str, container: str, class_field: str
) -> Iterator[Candidate]:
    stated = _stated_class(sample, class_field)
    for member in sample:
        if member.is_metadata:
            continue
        yield Candidate(
            path=f"{name}!{member.name}",
            stamp=f"{container}:{member.index}",
            meta_class=stated or first_folder(member.name) or first_folder(name),
            load=given(member.data) if member.problem is None else fault(member.problem),
            container=container,
        )


def _stated_class(sample: list[_Member], class_field: str) -> str:
    for member in sample:
        if len(member.data) > _MAX_METADATA_BYTES:
            continue
        if member.extension == "json":
            try:
                content = json.loads(member.data)
            except (ValueError, RecursionError):
                continue
            value = content.get(class_field) if isinstance(content, dict) else None
            if isinstance(value, str | int):
                return valid_text(str(value))
        elif member.extension == "cls":
            return member.data.decode("utf-8", "backslashreplace").strip()
    return ""
