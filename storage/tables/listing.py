"""All tables at a location."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from storage.locations.location import Entry, Location
from storage.tables.part_files import CorruptPart, open_part
from storage.tables.plans import SpecConflict, TableInfo
from storage.tables.schemas import TABLES
from storage.tables.specs import read_spec
from storage.tables.table import PART_FILE, SPEC_KEY


def list_tables(location: Location, names: Iterable[str] = TABLES) -> list[TableInfo]:
    """List the tables at a location, with the number of rows their parts' footers claim."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for name in names:
        for entry in location.entries(name):
            spec_key, _, file = entry.path.removeprefix(f"{name}/").partition("/")
            if SPEC_KEY.fullmatch(spec_key) and (file == "spec.json" or PART_FILE.fullmatch(file)):
                parts = found.setdefault((name, spec_key), [])
                if file != "spec.json":
                    parts.append(entry)
    return [_info(location, *key, parts) for key, parts in sorted(found.items())]


def _info(location: Location, name: str, spec_key: str, parts: Sequence[Entry]) -> TableInfo:
    rows = unreadable = 0
    for entry in parts:
        try:
            with open_part(location, entry.path) as part:
                rows += part.footer().rows
        except CorruptPart:
            unreadable += 1
    size = sum(entry.size for entry in parts)
    known = name, spec_key, len(parts), rows, size, unreadable
    try:
        return TableInfo(*known, spec=read_spec(location, name, spec_key))
    except FileNotFoundError:
        where = location.join(f"{name}/{spec_key}/spec.json")
        lost = (
            f"{where} is not there. `cirflow cache repair`, or the next run of its flow, makes it"
        )
        return TableInfo(*known, spec={}, fault=lost)
    except SpecConflict as error:
        return TableInfo(*known, spec={}, fault=str(error))
