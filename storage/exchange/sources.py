"""Files that others made: their identity, and the refusal of those that may run code."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PICKLE_NAMES: Final = (".pkl", ".pickle")
_BLOCK: Final = 1 << 20


class ExchangeError(ValueError):
    """A file cannot be imported, or a table cannot be exported, as it stands."""


@dataclass(frozen=True)
class SourceFile:
    """A file to import.

    Attributes:
        path: Its place.
        sha256: Hash of its bytes, 64 hex digits.
    """

    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """Its name without folders."""
        return self.path.name

    @property
    def title(self) -> str:
        """Name and start of the hash, for people."""
        return f"{self.name}, sha256 {self.sha256[:12]}"


def open_sources(paths: Sequence[str | Path]) -> tuple[SourceFile, ...]:
    """The files with their hashes.

    Raises:
        ExchangeError: There is none, one does not exist or is given twice, or it is a pickle.
    """
    found: dict[str, SourceFile] = {}
    for path in map(Path, paths):
        source = open_source(path)
        if source.sha256 in found:
            raise ExchangeError(
                f"{path}: the same file as {found[source.sha256].path}; give it once"
            )
        found[source.sha256] = source
    if not found:
        raise ExchangeError("no file was given; name at least one")
    return tuple(found.values())


def open_source(path: Path) -> SourceFile:
    """One file with its hash.

    Raises:
        ExchangeError: It does not exist, or is a pickle.
    """
    if not path.is_file():
        known = "it is not a file" if path.exists() else "there is no such file"
        raise ExchangeError(f"{path}: {known}")
    refuse_pickle(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return SourceFile(path, digest.hexdigest())


def refuse_pickle(path: Path) -> None:
    """Refuse a pickle, by its name or by its first bytes, and name the safe way.

    Raises:
        ExchangeError: It is one.
    """
    with path.open("rb") as file:
        head = file.read(2)
    is_pickle = head[:1] == b"\x80" and head[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if path.suffix.lower() in _PICKLE_NAMES or is_pickle:
        target = path.with_suffix(".plain.json" if path.suffix == ".json" else ".json")
        raise ExchangeError(
            f"{path}: a pickle can run any code of its maker, so that it is not opened. If it "
            "holds lists, dictionaries, texts and numbers only, convert it first: `python -m "
            f"storage.exchange.plain_pickle {path} {target}`. If it holds tensors, its owner has "
            "to write it again: ids as JSON, arrays as safetensors"
        )
