"""Canonical JSON and the keys made from it: artefacts with equal keys are the same.

A key is a hash of *values*, never of a path, a file name or a row number. Two processes that hold
equal values compute equal keys, on any machine and with any order of dictionary insertion.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Final, TypeAlias

KEY_DIGITS: Final = 20
"""Hexadecimal digits of a `content_key`: 80 bits."""
ID_DIGITS: Final = 64
"""Hexadecimal digits of the identity of an image or a file."""

JsonValue: TypeAlias = (
    "bool | int | float | str | list[JsonValue] | tuple[JsonValue, ...]"
    " | Mapping[str, JsonValue] | None"
)


def canonical_json(obj: object) -> str:
    """Return the one JSON text of a plain value: sorted keys, no spaces, no escapes beyond JSON's.

    Tuples are written as lists. The integer ``1`` and the float ``1.0`` are different values.

    Raises:
        ValueError: for NaN or infinity, and for text that is not valid Unicode.
        TypeError: for a value that JSON cannot hold (numpy scalars, paths, sets, bytes, ...) or a
            dictionary key that is not text; the message gives the place inside the value.
    """
    return json.dumps(
        _plain(obj, "value"),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )


def content_key(obj: object, length: int = KEY_DIGITS) -> str:
    """Return the first ``length`` hex digits of the sha256 of ``canonical_json(obj)``.

    Twenty digits are 80 bits: among a billion keys the odds of one collision are about 4e-7.
    """
    if not 8 <= length <= ID_DIGITS:
        raise ValueError(f"a key has 8 to 64 hex digits, not {length}")
    return sha256_hex(canonical_json(obj).encode())[:length]


def sha256_hex(data: bytes | memoryview) -> str:
    """Return the sha256 of raw bytes as 64 hex digits (the identity of an image or a file)."""
    return hashlib.sha256(data).hexdigest()


def _plain(obj: object, place: str) -> object:
    # Exact types: numpy's float64 is a float, and a str-enum is a str, yet neither is plain JSON.
    if obj is None or type(obj) in (bool, int):
        return obj
    if type(obj) is str:
        return _valid_text(obj, place)
    if type(obj) is float:
        if not math.isfinite(obj):
            raise ValueError(f"{place} is {obj!r}; a key holds finite numbers only")
        return obj
    if isinstance(obj, Mapping):
        return {_text_key(k, place): _plain(v, f"{place}[{k!r}]") for k, v in obj.items()}
    if isinstance(obj, list | tuple):
        return [_plain(item, f"{place}[{i}]") for i, item in enumerate(obj)]
    raise TypeError(
        f"{place} is a {type(obj).__name__}; a key is made of None, bool, int, float, str,"
        " lists and dictionaries with text keys: convert it first"
    )


def _text_key(key: object, place: str) -> str:
    if type(key) is not str:
        raise TypeError(f"{place} has the key {key!r}; keys must be text")
    return _valid_text(key, place)


def _valid_text(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{place} is not valid Unicode text: {text!r}") from error
    return text
