"""A check of every file under a root, and the repair of what it finds."""

from __future__ import annotations

import re
from dataclasses import dataclass

from storage.checks.checkpoints import check_checkpoints
from storage.checks.collections import check_collections
from storage.checks.displaced import displaced
from storage.checks.findings import Fault, Findings, Listed, going_on
from storage.checks.tables import ASIDE, check_marks, check_records, check_tables
from storage.locations import manifest
from storage.locations.damage import put_aside
from storage.locations.entries import STAGING
from storage.locations.local_files import CLOSED
from storage.locations.location import Entry, Location
from storage.tables.schemas import TABLES
from storage.tables.table import PART_FILE, SPEC_KEY

_OURS = {*TABLES, "collections", "begun", "checkpoints", "training", manifest.FOLDER, "probe"}
_FOLDER = re.compile(
    rf"[^/]+|({'|'.join(TABLES)})/{SPEC_KEY.pattern}|{manifest.FOLDER}/[^.]+"
    r"|collections/(copies|places|listings|containers|containers/[^/.]+)"
    r"|(begun|checkpoints|training)/[^/.]+(/[^/.]+)?"
)
"""Paths of folders: a file in such a place keeps others from being written."""


@dataclass(frozen=True)
class Mended:
    """A fault with what was done about it."""

    fault: Fault
    done: str


def check_root(location: Location) -> Findings:
    """Check every file: one listing, and one reading of each file that is not empty.

    It goes on past each fault, and may run while others publish.
    """
    found = Findings()
    entries = location.entries()
    odd = {entry.path: _odd(entry) for entry in entries if _odd(entry)}
    listed = Listed(location, tuple(entry for entry in entries if entry.path not in odd))
    records = manifest.read_records(entry.path for entry in listed.entries)
    check_tables(listed, records, found)
    check_collections(listed, found)
    check_checkpoints(listed, records, found)
    check_marks(listed, found)
    check_records(listed, records, found)
    for entry in listed.entries:
        top = entry.path.partition("/")[0]
        if top not in _OURS:
            found.others.append(entry.path)
        elif top == "probe":
            found.left_over["probes"] = found.left_over.get("probes", 0) + 1
    found.others, others = [], found.others
    for path in others:
        moved = None
        if path.partition("/")[0] in _OURS and PART_FILE.fullmatch(path.rpartition("/")[2]):
            with going_on(found, path):
                moved = displaced(location, path, records)
        found.others += [] if moved else [path]
        found.faults += [moved] if moved else []
    staged = len(location.staged())
    if staged:
        found.left_over["staged"] = found.left_over.get("staged", 0) + staged
    # What is out of place comes first and alone: the rest of its damage shows once it is gone.
    found.faults = [_out_of_place(location, path, what) for path, what in odd.items()] + [
        fault
        for fault in found.faults
        if not any(f"{fault.path}/".startswith(f"{path}/") for path in odd)
    ]
    return found


def _odd(entry: Entry) -> str:
    """What is wrong with the place of an entry of ours, whatever its content; mostly nothing."""
    top = entry.path.partition("/")[0]
    if top not in _OURS and top != STAGING:
        return ""
    if entry.odd:
        said = f"it is {entry.odd}" if entry.odd == CLOSED else f"it is not a file but {entry.odd}"
        return "" if ASIDE.fullmatch(entry.path) else said
    return "it is a file where a folder belongs" if _FOLDER.fullmatch(entry.path) else ""


def _out_of_place(location: Location, path: str, what: str) -> Fault:
    if what.endswith(CLOSED):
        repair = "none: mend the access to it, then check again"
        return Fault(path, what, "nothing in it can be checked", repair, lambda: "left as it is")

    def mend() -> str:
        return f"put aside as {put_aside(location, path).rpartition('/')[2]}"

    costs = "what belongs there cannot be read or made"
    return Fault(path, what, costs, "it is put aside (nothing is deleted)", mend)


def repair_root(location: Location) -> tuple[list[Mended], Findings]:
    """Mend what was found and check again, until a check finds nothing more that can be mended.

    Mending one file may show the fault of another, which could not be read without it, or make way
    for a mending that failed before, or for a better one.

    Returns:
        What was done, and the last findings: their faults are those that only a run can mend.
    """
    done: dict[tuple[str, ...], Mended] = {}
    failed: dict[tuple[str, ...], Mended] = {}
    while True:
        found, before = check_root(location), len(done)
        for fault in found.faults:
            key = fault.path, fault.what, fault.repair
            if key in done:
                continue
            try:
                done[key] = Mended(fault, fault.mend())
                failed.pop(key, None)
            except (ValueError, OSError) as error:
                failed[key] = Mended(fault, f"not mended: {error}")
        if len(done) == before:
            break
    for path in found.unrecorded:
        manifest.record(location, path, location.read_bytes(path))
    return [*done.values(), *failed.values()], found
