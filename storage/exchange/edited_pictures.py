"""Edited pictures and their manifest: one JSON object a line for each reference and text.

``manifest.jsonl`` lies in the folder of the pictures::

    {"reference_sha256": 64 hex digits of the reference's file bytes, "text": the query's text,
     "text_sha256": of its UTF-8 bytes, "image": path in the folder, "image_sha256": of its bytes,
     "editor": name, "revision": ..., "steps": ..., "text_guidance": ..., "image_guidance": ...,
     "seed": ...}

`text_sha256` and what follows `editor` may be left out; further fields are kept as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from storage.benchmarks.parsing import shorten
from storage.exchange.records import Record, read_records
from storage.exchange.sources import ExchangeError
from storage.tables.keys import content_key, sha256_hex

MANIFEST: Final = "manifest.jsonl"
ASKED: Final = "asked.jsonl"
"""Edits that are still to be made, in the fields that a manifest has of them."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_OWN: Final = ("reference_sha256", "text", "text_sha256", "image", "image_sha256")
"""Fields of a record that say which picture it is; the others say how it was made."""


@dataclass(frozen=True)
class EditedPicture:
    """One record of a manifest.

    Attributes:
        reference: sha256 of the reference image's file.
        text: The text that the picture was edited by.
        path: The picture's file.
        picture_id: sha256 of its bytes.
        making: How it was made; `editor` among it.
    """

    reference: str
    text: str
    path: Path
    picture_id: str
    making: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The key of its row."""
        return edit_key(self.reference, self.text)


def edit_key(reference: str, text: str) -> str:
    """The key of the edit of a reference image (sha256) by a text: equal edits are one."""
    return content_key({"reference": reference, "text": text})


def manifest_key(pictures: Iterable[tuple[str, str, str]]) -> str:
    """The key of an import, from (edit key, picture id, making as JSON) of all its pictures."""
    return content_key(sorted(map(list, pictures)))


def making_json(making: Mapping[str, Any]) -> str:
    """How a picture was made, as its row and the key of an import hold it."""
    return json.dumps(making, sort_keys=True, ensure_ascii=False)


def read_manifest(manifest: Path) -> tuple[list[EditedPicture], int]:
    """The records of a manifest, each edit once, and how many repeat an earlier one.

    Files are read and compared with their hashes; whether they decode is not asked.

    Raises:
        ExchangeError: Naming the record that is incomplete, or whose picture is missing, changed,
            the unedited reference, or another than an earlier record's.
    """
    found: dict[str, EditedPicture] = {}
    repeated = 0
    for place, record in read_records(manifest):
        where = f"{manifest}, {place}"
        picture = _picture(manifest.parent, record, where)
        known = found.setdefault(picture.key, picture)
        repeated += known is not picture
        if known.picture_id != picture.picture_id:
            raise ExchangeError(
                f"{where}: an earlier record has another picture of this reference and text "
                f"({known.path.name}, here {picture.path.name}); keep one of them"
            )
    if not found:
        raise ExchangeError(f"{manifest}: it holds no records")
    return list(found.values()), repeated


def _picture(folder: Path, record: Record, where: str) -> EditedPicture:
    reference = _digest(record, "reference_sha256", where)
    picture_id = _digest(record, "image_sha256", where)
    text, name, editor = (_text(record, field, where) for field in ("text", "image", "editor"))
    stated = record.get("text_sha256")
    if stated is not None and stated != sha256_hex(text.encode()):
        raise ExchangeError(f"{where}: text_sha256 is not that of the text {shorten(text)}")
    if picture_id == reference:
        raise ExchangeError(f"{where}: the picture is the unedited reference; leave it out")
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts:
        raise ExchangeError(f"{where}: image is {shorten(name)}, expected a path in {folder}")
    path = folder / inside
    if not path.is_file():
        raise ExchangeError(f"{where}: the picture {path} does not exist")
    if sha256_hex(path.read_bytes()) != picture_id:
        raise ExchangeError(f"{where}: {path} does not have the bytes that image_sha256 says")
    making = {key: value for key, value in record.items() if key not in _OWN and value is not None}
    return EditedPicture(reference, text, path, picture_id, making | {"editor": editor})


def _digest(record: Record, field: str, where: str) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ExchangeError(f"{where}: {field} is {shorten(value)}, expected 64 hex digits")
    return value


def _text(record: Record, field: str, where: str) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not value:
        raise ExchangeError(f"{where}: {field} is {shorten(value)}, expected a text")
    return value


def write_pictures(
    folder: Path, rows: Iterable[tuple[str, str, bytes, Mapping[str, Any]]]
) -> Iterator[Record]:
    """Write pictures into a folder and yield their records.

    Args:
        folder: Exists; pictures are named by their sha256.
        rows: Reference, text, file bytes and making of each.
    """
    for reference, text, data, making in rows:
        picture_id = sha256_hex(data)
        name = f"{picture_id}.png" if data.startswith(b"\x89PNG") else picture_id
        folder.joinpath(name).write_bytes(data)
        picture = {"image": name, "image_sha256": picture_id}
        yield {**asked_record(reference, text), **picture, **making}


def asked_record(reference: str, text: str) -> Record:
    """What a record says before its picture is made."""
    return {
        "reference_sha256": reference,
        "text": text,
        "text_sha256": sha256_hex(text.encode()),
    }
