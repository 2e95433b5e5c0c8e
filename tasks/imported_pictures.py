"""Pictures that were edited elsewhere: a manifest, stored as a table that a stage then completes.

The key of an import is the hash of its pictures and of how they were made; the table of that key
holds them, and the stage that reads it adds a failed row for each edit that the import lacks.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.editors.imported import ImportedPictures
from storage.collections.decoding import ImageProblem, inspect_image
from storage.exchange.edited_pictures import (
    EditedPicture,
    making_json,
    manifest_key,
    read_manifest,
)
from storage.exchange.sources import ExchangeError
from storage.locations.location import Location
from storage.tables.finding import find_table
from storage.tables.keys import content_key
from storage.tables.plans import Shard
from storage.tables.schemas import OK
from storage.tables.table import Table, load_table, open_table

TABLE: Final = "edited_pictures"
PRODUCER: Final = "cirflow/edited_pictures/1"
ABSENT: Final = "not_imported"
"""Status of the row of an edit that an import lacks."""
_SHARD: Final = 32


@dataclass(frozen=True)
class PictureImport:
    """What was imported.

    Attributes:
        key: Names the import in `editor.pictures`.
        pictures: Edits with a picture.
        unusable: Of these, files that do not decode.
        repeated: Records that repeat an earlier one.
        editors: Editor -> number of pictures.
        keys: Keys of the edits.
    """

    key: str
    pictures: int
    unusable: int
    repeated: int
    editors: Mapping[str, int]
    keys: frozenset[str]


def pictures_spec(editor: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a table of edited pictures, made here or elsewhere."""
    return {"producer": PRODUCER, "editor": dict(editor)}


def import_pictures(root: str, manifest: Path) -> PictureImport:
    """Store the pictures of a manifest; the same ones again make nothing.

    Args:
        root: Root of the tables.
        manifest: JSON lines next to the pictures; see `storage.exchange.edited_pictures`.

    Raises:
        ExchangeError: Naming the record that does not fit.
    """
    found, repeated = read_manifest(manifest)
    key = manifest_key((each.key, each.picture_id, making_json(each.making)) for each in found)
    spec = pictures_spec(ImportedPictures(pictures=key).fingerprint)
    table = open_table(Location(root), TABLE, spec)
    ordered = sorted(found, key=lambda each: each.key)
    unusable = 0
    for start in range(0, len(ordered), _SHARD):
        unusable += _publish(table, ordered[start : start + _SHARD])
    editors = Counter(str(each.making["editor"]) for each in found)
    return PictureImport(
        key, len(found), unusable, repeated, editors, frozenset(each.key for each in found)
    )


def _publish(table: Table, pictures: Sequence[EditedPicture]) -> int:
    data = [each.path.read_bytes() for each in pictures]
    problems = [_problem(each) for each in data]
    rows = table.rows(
        edit_key=[each.key for each in pictures],
        reference=[each.reference for each in pictures],
        text=[each.text for each in pictures],
        data=data,
        picture_id=[each.picture_id for each in pictures],
        making=[making_json(each.making) for each in pictures],
        status=[problem.status if problem else OK for problem in problems],
        reason=[problem.reason if problem else "" for problem in problems],
    )
    table.publish(Shard.of([each.key for each in pictures]), rows)
    return sum(problem is not None for problem in problems)


def _problem(data: bytes) -> ImageProblem | None:
    try:
        inspect_image(data)
    except ImageProblem as problem:
        return problem
    return None


@functools.lru_cache(maxsize=4)
def require_import(root: str, key: str) -> None:
    """Refuse an import that does not exist or was cut off.

    Raises:
        ExchangeError: Saying what to do; the imports that exist are listed.
    """
    location = Location(root)
    spec = pictures_spec(ImportedPictures(pictures=key).fingerprint)
    table = find_table(location, TABLE, content_key(spec))
    if table is None:
        known = ", ".join(sorted(_imports(location))) or "none"
        raise ExchangeError(
            f"there is no import {key!r} in {root}; there are {known}. "
            "`cirflow import pictures` makes one and prints its key"
        )
    rows = table.read(["picture_id", "making"]).drop_nulls()
    if manifest_key(rows.iter_rows()) != key:
        raise ExchangeError(f"the import {key} was cut off: import its manifest again")


def editors_of(root: str, key: str) -> str:
    """The editors of an import's pictures, in words; empty for one that is not there."""
    spec = pictures_spec(ImportedPictures(pictures=key).fingerprint)
    table = find_table(Location(root), TABLE, content_key(spec))
    if table is None:
        return ""
    rows = table.read(["making"]).drop_nulls()
    return " and ".join(sorted({str(json.loads(making)["editor"]) for making in rows["making"]}))


def _imports(location: Location) -> Iterator[str]:
    for spec_key in {path.split("/")[1] for path in location.list(TABLE)}:
        editor = load_table(location, TABLE, spec_key).spec["editor"]
        if editor["engine"] == "imported":
            yield editor["model"]
