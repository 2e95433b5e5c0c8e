"""Checks of tables: specs, parts against the manifest, receipts."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from storage.checks.displaced import displaced, home_of
from storage.checks.findings import Fault, Findings, Listed, fault_in, going_on
from storage.collections.place_files import PLACES, named_hash
from storage.locations import manifest
from storage.locations.damage import MALFORMED, DamagedFile, put_aside
from storage.locations.location import Entry, Location
from storage.locations.manifest import Record
from storage.tables.costs import NOTE
from storage.tables.index import INDEX, Known, read_index
from storage.tables.keys import content_key
from storage.tables.matrices import DERIVED, fault_of
from storage.tables.part_files import CorruptPart, open_part
from storage.tables.plans import SpecConflict
from storage.tables.receipts import EARLIER, RECEIPT, Survey, parts_hash, read_receipt
from storage.tables.schemas import OK, TABLES, table_schema
from storage.tables.specs import read_spec, spec_text
from storage.tables.table import PART_FILE, SPEC_KEY, Table
from storage.words import agreed

ASIDE = re.compile(r".+\.quarantined-\d+")
"""The name of a file that was put aside."""

_MARK = re.compile(r"[0-9a-f]{8,64}")
_MADE_AGAIN = {
    "images": "its images are stored again by ingesting their source",
    "sources": "its inputs are looked at again by ingesting their source",
    "results": "its scores are recorded again by evaluating again",
}


def check_tables(listed: Listed, records: Mapping[str, list[Record]], found: Findings) -> None:
    """Check the folder of every table."""
    folders: dict[tuple[str, str], dict[str, Entry]] = {}
    for name in TABLES:
        for entry in listed.below(name):
            spec_key, _, file = entry.path.removeprefix(f"{name}/").partition("/")
            if SPEC_KEY.fullmatch(spec_key):
                folders.setdefault((name, spec_key), {})[file] = entry
            else:
                found.others.append(entry.path)
    for (name, spec_key), files in folders.items():
        found.tables += 1
        _check_table(listed.location, name, spec_key, files, records, found)
    for path, own in records.items():
        if path.partition("/")[0] in TABLES:
            with going_on(found, path):
                found.faults.extend(_vanished(listed.location, path, own))


def _check_table(
    location: Location,
    name: str,
    spec_key: str,
    files: Mapping[str, Entry],
    records: Mapping[str, list[Record]],
    found: Findings,
) -> None:
    parts = [entry for file, entry in files.items() if PART_FILE.fullmatch(file)]
    spec, fault = None, None
    with going_on(found, f"{name}/{spec_key}/spec.json"):
        spec, fault = _checked_spec(location, name, spec_key, parts)
    if fault is not None:
        found.faults.append(fault)
    for file, entry in files.items():
        if RECEIPT.fullmatch(file) or NOTE.fullmatch(file):
            found.files += 1
            if entry.size:
                what = "the receipt" if RECEIPT.fullmatch(file) else "the note of costs"
                found.faults.append(_overwritten(location, entry.path, what))
        elif DERIVED.fullmatch(file):
            found.files += 1
            with going_on(found, entry.path):
                if what := fault_of(location, entry.path):
                    found.faults.append(_damaged_matrix(location, entry.path, what))
        elif PLACES.fullmatch(file):
            found.files += 1
            with going_on(found, entry.path):
                found.faults.extend(_changed_places(location, entry.path))
        elif INDEX.fullmatch(file):
            found.files += 1
        elif ASIDE.fullmatch(file):
            found.left_over["put aside"] = found.left_over.get("put aside", 0) + 1
        elif EARLIER.fullmatch(file):
            kind = "receipts of an earlier version"
            found.left_over[kind] = found.left_over.get(kind, 0) + 1
        elif not PART_FILE.fullmatch(file) and file != "spec.json":
            found.others.append(entry.path)
    found.files += len(parts) + ("spec.json" in files)
    table = None if spec is None else Table(location, table_schema(name, spec), spec_key, spec)
    survey = Survey(f"{name}/{spec_key}", tuple(parts), frozenset(e.path for e in files.values()))
    for path in sorted(survey.files):
        if RECEIPT.fullmatch(path.rpartition("/")[2]):
            with going_on(found, path):
                found.faults.extend(_untrue_receipt(location, path, survey, table))
        if INDEX.fullmatch(path.rpartition("/")[2]) and table is not None:
            with going_on(found, path):
                found.faults.extend(_untrue_index(table, path, parts))
    for entry in parts:
        with going_on(found, entry.path):
            judge = functools.partial(_part_fault, table, entry.path, records.get(entry.path, []))
            what = fault_in(location, entry.path, judge)
            if what:
                moved = displaced(location, entry.path, records)
                found.faults.append(moved or _broken_part(location, name, entry.path, what))
            elif entry.path not in records:
                found.unrecorded.append(entry.path)


def _part_fault(table: Table | None, path: str, records: Sequence[Record], data: bytes) -> str:
    if records and Record.of(path, data) not in records:
        now, then = len(data), records[0].size
        size = f"{now} {agreed(now, 'byte')}"
        size = f"it has {size}" if now == then else f"{size} instead of {then}"
        return f"its content is not that which was published ({size})"
    if table is None:  # the fault is that of the spec, if the part is this folder's own
        home = home_of(path, data)
        return f"it belongs to {home.rpartition('/')[0]}" if home not in ("", path) else ""
    return table.fault_of(path, data)


def _untrue_receipt(
    location: Location, path: str, survey: Survey, table: Table | None
) -> Iterator[Fault]:
    """A receipt that says something else than the table that it lies in."""
    receipt = read_receipt(path)
    if receipt is None:
        what = "it is the receipt of another table, or its name was changed"
    elif table is None or receipt.parts != parts_hash(survey):
        return  # it speaks of other parts than those that are there now, and nobody asks it
    else:
        try:
            rows = table.rows_by_status()
        except CorruptPart:
            return  # the fault is that of the part
        ok, every = rows.get(OK, 0), sum(rows.values())
        if receipt.ok <= ok and receipt.failed <= every - ok:
            return
        what = (
            f"it says {receipt.ok} {agreed(receipt.ok, 'row that is', 'rows that are')} ok and"
            f" {receipt.failed} that failed, its parts have {ok} and {every - ok}"
        )

    def mend() -> str:
        return f"put aside as {put_aside(location, path).rpartition('/')[2]}"

    costs = "a run may take rows for made that are missing"
    repair = "it is put aside; the next run counts the rows again"
    yield Fault(path, what, costs, repair, mend)


def _changed_places(location: Location, path: str) -> Iterator[Fault]:
    """A file of places that is not what its name says."""
    if path.endswith(named_hash(location.read_bytes(path))):
        return

    def mend() -> str:
        return f"put aside as {put_aside(location, path).rpartition('/')[2]}"

    what = "its content does not have the hash that it is named by"
    costs = "nothing: who reads a picture compares its hash, and looks into footers"
    yield Fault(path, what, costs, "it is put aside; the next ingest makes one", mend)


def _untrue_index(table: Table, path: str, parts: Sequence[Entry]) -> Iterator[Fault]:
    """A file of an index that was damaged, or says something else than the parts."""
    known, location = Known(), table.location
    told = dict(read_index(location, path, known))
    what = "" if told else "it is damaged, or the index of another table"
    for entry in parts:
        name = entry.path.rpartition("/")[2]
        said = told.get((name, entry.size))
        if said is None:
            continue
        try:
            rows, footer = table.statuses_of(entry)
        except CorruptPart:
            continue  # the fault is that of the part
        own = known.rows_of(name, entry.size, footer, rows.column(0), rows.column(1))
        if (said.attempt, said.created) != (own.attempt, own.created) or not (
            np.array_equal(said.digests, own.digests) and np.array_equal(said.codes, own.codes)
        ):
            what = f"it says something else than {name}"
            break

    def mend() -> str:
        return f"put aside as {put_aside(location, path).rpartition('/')[2]}"

    if what:
        costs = "nothing" if not told else "a run may take rows for made that are missing"
        yield Fault(path, what, costs, "it is put aside; the parts are read instead", mend)


def _broken_part(location: Location, table: str, path: str, what: str) -> Fault:
    again = _MADE_AGAIN.get(table, "its rows are made again by the next run of their flow")

    def mend() -> str:
        aside = put_aside(location, path)
        manifest.forget(location, path)
        return f"put aside as {aside.rpartition('/')[2]}; {again}"

    return Fault(path, what, again, "it is put aside (nothing is deleted)", mend)


def _damaged_matrix(location: Location, path: str, what: str) -> Fault:
    def mend() -> str:
        location.remove(path)
        return "removed; the next search makes it again"

    costs = "nothing: it is made of the table's parts again when it is needed"
    return Fault(path, what, costs, "it is removed", mend)


def _vanished(location: Location, path: str, records: Sequence[Record]) -> Iterator[Fault]:
    if location.exists(path) or not any(location.exists(record.place) for record in records):
        return  # it is there, or was put aside while we looked
    again = _MADE_AGAIN.get(
        path.partition("/")[0], "its rows are made again by the next run of their flow"
    )

    def mend() -> str:
        if location.exists(path):
            return "it was moved back"
        manifest.forget(location, path)
        return f"taken off the manifest; {again}"

    what = f"it was published ({records[0].size} bytes) and is not there any more"
    yield Fault(path, what, again, "it is taken off the manifest", mend)


# ------------------------------------------------------------------------------------ specs


def _checked_spec(
    location: Location, name: str, spec_key: str, parts: Sequence[Entry]
) -> tuple[dict[str, object] | None, Fault | None]:
    path = f"{name}/{spec_key}/spec.json"
    lost = False
    try:
        spec = read_spec(location, name, spec_key)
        table_schema(name, spec)
        return spec, None
    except FileNotFoundError:
        if not parts:
            return None, None
        what, lost = "it is not there", True
    except (SpecConflict, ValueError) as error:
        what = error.__cause__.what if isinstance(error.__cause__, DamagedFile) else str(error)
    derived = _derived_spec(location, name, spec_key, parts)
    costs = f"the {len(parts)} {agreed(len(parts), 'part')} of {name}/{spec_key} cannot be read"
    if derived is None:
        repair = "the next run of its flow writes it"
        repair = repair if lost else f"it is put aside; {repair}"
    else:
        repair = "it is written again, from the footer of a part"

    def mend() -> str:
        if not lost:
            put_aside(location, path)
        if derived is not None:
            location.create(path, spec_text(derived))
        return repair

    return derived, Fault(path, what, costs, repair, mend)


def _derived_spec(
    location: Location, name: str, spec_key: str, parts: Sequence[Entry]
) -> dict[str, object] | None:
    """A spec that has the key: from a part's footer, or one that says the producer alone."""
    for entry in parts:
        try:
            with open_part(location, entry.path) as part:
                held = part.spec()
        except (CorruptPart, OSError):
            continue
        if held is not None and content_key(held) == spec_key and _fits(name, held):
            return held
    for version in range(1, 10):
        simple: dict[str, object] = {"producer": f"cirflow/{name}/{version}"}
        if content_key(simple) == spec_key:
            return simple
    return None


def _fits(name: str, spec: Mapping[str, object]) -> bool:
    """Whether a spec is one of that kind of table."""
    try:
        return bool(table_schema(name, spec))
    except ValueError:
        return False


# ------------------------------------------------------------------------------------ empty files


def check_marks(listed: Listed, found: Findings) -> None:
    """Check the marks of begun shards, which are hints."""
    for entry in listed.below("begun"):
        found.files += 1
        found.left_over["marks"] = found.left_over.get("marks", 0) + 1
        with going_on(found, entry.path):
            if entry.size and not _is_mark(listed.location, entry.path):
                found.faults.append(_overwritten(listed.location, entry.path, "the mark"))


def _is_mark(location: Location, path: str) -> bool:
    try:
        return bool(_MARK.fullmatch(path.rpartition("/")[2])) and isinstance(
            json.loads(location.read_bytes(path)), dict
        )
    except MALFORMED:
        return False


def check_records(listed: Listed, records: Mapping[str, list[Record]], found: Findings) -> None:
    """Check that the records of the manifest are what they are: names of empty files."""
    known = {record.place for own in records.values() for record in own}
    for entry in listed.below(manifest.FOLDER):
        found.files += 1
        if entry.path not in known:
            found.others.append(entry.path)
        elif entry.size:
            found.faults.append(_overwritten(listed.location, entry.path, "the record"))


def _overwritten(location: Location, path: str, which: str) -> Fault:
    def mend() -> str:
        location.replace(path, b"")
        return f"{which} is empty again"

    return Fault(
        path,
        "an empty file was written over",
        "nothing: only its name is read",
        "it is emptied",
        mend,
    )
