"""Edited pictures of a benchmark, written as a folder with a manifest; and what is still asked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.exchange.edited_pictures import ASKED, MANIFEST, asked_record, write_pictures
from storage.exchange.records import Record, write_records
from storage.exchange.sources import ExchangeError
from storage.tables.schemas import OK
from storage.tables.table import IncompleteTable, Table
from tasks.profile_stages import picture_stage
from tasks.query_sets import BenchmarkRef, load_query_set
from tasks.settings import Profile


def export_pictures(profile: Profile, ref: BenchmarkRef, folder: Path) -> dict[str, int]:
    """Write the pictures that a profile's editor made, and a record of each edit without one.

    Returns:
        Name of a written file -> its records.

    Raises:
        ExchangeError: the folder holds a manifest, or there is nothing to write.
    """
    for name in (MANIFEST, ASKED):
        if (folder / name).exists():
            raise ExchangeError(f"{folder / name} exists; name another folder with --out")
    stage = picture_stage(profile, ref)
    edits = stage.edits()
    if not edits:
        raise ExchangeError(f"{ref.title} has no query with a readable reference image")
    table = None
    if not profile.editor.lacking:
        with contextlib.suppress(IncompleteTable):  # no picture was made yet
            table = stage.existing_table()
    folder.mkdir(parents=True, exist_ok=True)
    records = [] if table is None else list(write_pictures(folder, _rows(table, list(edits))))
    made = {(each["reference_sha256"], each["text"]) for each in records}
    paths = _paths(profile.root, ref)
    asked: list[Record] = [
        {**asked_record(item.image_id, item.texts[0]), "reference": paths[item.image_id]}
        for _, item in sorted(edits.items())
        if (item.image_id, item.texts[0]) not in made
    ]
    found: dict[str, list[Record]] = {MANIFEST: records, ASKED: asked}
    return {name: write_records(folder / name, own) for name, own in found.items() if own}


def _rows(table: Table, keys: list[str]) -> Iterator[tuple[str, str, bytes, dict[str, Any]]]:
    columns = ["reference", "text", "data", "making", "status"]
    for part in table.iter_parts(columns, keys):
        for _, reference, text, data, making, status in part.iter_rows():
            if status == OK:
                yield reference, text, data, json.loads(making)


def _paths(root: str, ref: BenchmarkRef) -> dict[str, str]:
    """Image id -> a file of it, for those who edit elsewhere."""
    found = load_query_set(root, ref)
    paths = found.benchmark.image_paths
    return {image: str(paths[name]) for name, image in found.image_ids.items()}
