"""A check of every file under a root, and the repair of what it finds."""

from __future__ import annotations

from dataclasses import dataclass

from storage.checks.checkpoints import check_checkpoints
from storage.checks.collections import check_collections
from storage.checks.findings import Fault, Findings, Listed
from storage.checks.tables import ASIDE, check_marks, check_records, check_tables
from storage.locations import manifest
from storage.locations.damage import put_aside
from storage.locations.entries import STAGING
from storage.locations.local_files import CLOSED
from storage.locations.location import Entry, Location
from storage.tables.schemas import TABLES
from storage.tables.table import SPEC_KEY

_OURS = {*TABLES, "collections", "begun", "checkpoints", "training", manifest.FOLDER, "probe"}


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
    top, *below = entry.path.split("/")
    if top not in _OURS and top != STAGING:
        return ""
    if entry.odd:
        said = f"it is {entry.odd}" if entry.odd == CLOSED else f"it is not a file but {entry.odd}"
        return "" if ASIDE.fullmatch(entry.path) else said
    folder = not below or (top in TABLES and len(below) == 1 and SPEC_KEY.fullmatch(below[0]))
    return "it is a file where a folder belongs" if folder else ""


def _out_of_place(location: Location, path: str, what: str) -> Fault:
    if what.endswith(CLOSED):
        repair = "none: mend the access to it, then check again"
        return Fault(path, what, "nothing in it can be checked", repair, lambda: "left as it is")

    def mend() -> str:
        return f"put aside as {put_aside(location, path).rpartition('/')[2]}"

    costs = "what belongs there cannot be read or made"
    return Fault(path, what, costs, "it is put aside (nothing is deleted)", mend)


def repair_root(location: Location) -> tuple[list[Mended], Findings]:
    """Mend what was found and check again, until a check finds nothing that was not found before.

    Mending one file may show the fault of another, which could not be read without it.

    Returns:
        What was done, and the last findings: their faults are those that only a run can mend.
    """
    done: list[Mended] = []
    seen: set[tuple[str, str]] = set()
    while True:
        found = check_root(location)
        new = [fault for fault in found.faults if (fault.path, fault.what) not in seen]
        for fault in new:
            seen.add((fault.path, fault.what))
            done.append(Mended(fault, _mended(fault)))
        if not new:
            break
    for path in found.unrecorded:
        manifest.record(location, path, location.read_bytes(path))
    return done, found


def _mended(fault: Fault) -> str:
    try:
        return fault.mend()
    except (ValueError, OSError) as error:
        return f"not mended: {error}"
