"""Strict JSON reading shared by annotations and predictions.

Python's ``json`` keeps the last of two equal keys and reads ``NaN``; both would change a score
silently, so both are refused here. It also reads half a surrogate pair, which a table cannot hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from storage.benchmarks.errors import AnnotationError, BenchmarkError

MAX_JSON_BYTES = 1 << 30

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path, error: type[BenchmarkError] = AnnotationError) -> Any:
    """Parse one UTF-8 JSON file, refusing repeated keys, non-finite numbers and half characters.

    Args:
        path: The file.
        error: Type of the error to raise.

    Raises:
        BenchmarkError: (as ``error``) with the path, the defect and the next step.
    """
    if not path.is_file():
        raise error(f"{path}: no such file. Check the path, or download the file it names.")
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise error(
            f"{path}: {size} bytes; at most {MAX_JSON_BYTES} are read. Is it the right file?"
        )
    try:
        return strict_json(path.read_bytes())
    except ValueError as problem:
        raise error(
            f"{path}: not valid JSON ({problem}). Write it again with a JSON library."
        ) from None


def strict_json(data: bytes, *, finite: bool = True) -> Any:
    """The value of one JSON text in UTF-8, without repeated keys and half characters.

    Args:
        data: The text.
        finite: Whether NaN and infinities are refused.

    Raises:
        ValueError: it is something else, or nested too deeply.
    """
    constant = _no_constant if finite else None
    try:
        text = data.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=constant)
        if _SURROGATE.search(text):  # most are halves of a whole pair
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def require_field(record: Any, name: str, kind: type, where: str) -> Any:
    """The field ``name`` of an annotation record, checked to be of type ``kind``.

    Raises:
        AnnotationError: naming the record, the field and the value found.
    """
    if not isinstance(record, dict) or name not in record:
        raise AnnotationError(f"{where}: field {name!r} is absent. Use the published annotations.")
    value = record[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise AnnotationError(
            f"{where}: field {name!r} is {shorten(value)}, expected {kind.__name__}."
        )
    return value


def require_records(value: Any, path: Path) -> list[Any]:
    """A JSON list of records, or an error that names the file."""
    if not isinstance(value, list) or not value:
        raise AnnotationError(f"{path}: expected a non-empty list, found {shorten(value)}.")
    return value


def require_names(value: Any, where: str) -> tuple[str, ...]:
    """A list of distinct strings, or an error that names the first entry that breaks this."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise AnnotationError(f"{where}: expected a list of names, found {shorten(value)}.")
    for name in value:
        if not isinstance(name, str):
            raise AnnotationError(f"{where}: {shorten(name)} is not a name.")
    return require_unique(tuple(value), where)


def require_unique(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The names themselves, or an error that shows the first that occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise AnnotationError(f"{where}: {name!r} occurs twice; names must be distinct.")
        seen.add(name)
    return names


def choose(option: str, value: object, allowed: Sequence[object]) -> Any:
    """A protocol switch's value, or an error that lists the allowed ones."""
    for known in allowed:  # by type too: 1 is not True here
        if value == known and type(value) is type(known):
            return value
    raise AnnotationError(f"{option}={value!r} is not known. Allowed: {listing(allowed)}.")


def find_root(root: Path, folders: Sequence[str], marker: Path) -> Path:
    """The folder under which ``marker`` lies: ``root`` or one of its named sub-folders.

    Raises:
        AnnotationError: saying which file was looked for and where.
    """
    candidates = [root, *(root / folder for folder in folders)]
    for candidate in candidates:
        if (candidate / marker).exists():
            return candidate
    tried = ", ".join(str(candidate / marker) for candidate in candidates)
    raise AnnotationError(
        f"{marker} was not found (looked at {tried}). Give the folder that holds it."
    )


def shorten(value: Any, limit: int = 60) -> str:
    """``repr`` of a hostile value, cut so that an error message stays readable."""
    if isinstance(value, dict | list) and len(value) > 4:
        return f"a {type(value).__name__} of {len(value)} entries"
    shown = repr(value)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def listing(values: Sequence[object], limit: int = 6) -> str:
    """The first few values for a message, with a count of the rest."""
    shown = ", ".join(shorten(value) for value in values[:limit]) or "none"
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} occurs twice in one object")
        found[key] = value
    return found


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
