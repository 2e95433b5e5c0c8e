"""Parts that lie in another folder than their own, and the way back: their rows cost hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from storage.checks.findings import Fault
from storage.locations import manifest
from storage.locations.location import Location
from storage.locations.manifest import Record
from storage.tables.keys import content_key
from storage.tables.part_files import CorruptPart, open_bytes
from storage.tables.schemas import TABLES, table_schema
from storage.tables.table import PART_FILE, SPEC_KEY, Table


def home_of(path: str, data: bytes) -> str:
    """The path that a part's footer says is its own; empty where no footer can be read."""
    try:
        with open_bytes(data, path) as part:
            footer = part.footer()
    except CorruptPart:
        return ""
    name = f"part-{footer.shard_key}.parquet"
    own = footer.table in TABLES and SPEC_KEY.fullmatch(footer.spec_key)
    return f"{footer.table}/{footer.spec_key}/{name}" if own and PART_FILE.fullmatch(name) else ""


def displaced(
    location: Location, path: str, records: Mapping[str, Sequence[Record]]
) -> Fault | None:
    """A part that is whole and of another folder, where it is missing; None for any other.

    Args:
        location: The root.
        path: Where the part lies.
        records: Of all published files, by their paths.

    Raises:
        FileNotFoundError: it is gone.
    """
    data = location.read_bytes(path)
    home = home_of(path, data)
    if home in ("", path) or location.exists(home):
        return None
    known = records.get(home)
    if not (Record.of(home, data) in known if known else _is_whole(location, home, data)):
        return None
    repair = f"it is moved back to {home.rpartition('/')[0]}"

    def mend() -> str:
        if location.exists(home):
            return "left as it is: the part has been made again"
        location.rename(path, home)
        manifest.record(location, home, data)
        manifest.forget(location, path)
        return repair

    what = f"it belongs to {home.rpartition('/')[0]}, where it is missing"
    return Fault(path, what, "its rows are not found where they belong", repair, mend)


def _is_whole(location: Location, home: str, data: bytes) -> bool:
    """Whether a part that no record knows is sound by its own spec."""
    name, spec_key, _ = home.split("/")
    try:
        with open_bytes(data, home) as part:
            spec = part.spec()
        if spec is None or content_key(spec) != spec_key:
            return False
        return not Table(location, table_schema(name, spec), spec_key, spec).fault_of(home, data)
    except (CorruptPart, ValueError, TypeError):
        return False
