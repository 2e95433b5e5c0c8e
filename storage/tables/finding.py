"""A table that may not be there."""

from __future__ import annotations

from storage.locations.location import Location
from storage.tables.schemas import table_schema
from storage.tables.specs import find_spec
from storage.tables.table import Table


def find_table(location: Location, name: str, spec_key: str) -> Table | None:
    """As `load_table`, but None where the table is not there; nothing is listed for it."""
    spec = find_spec(location, name, spec_key)
    return None if spec is None else Table(location, table_schema(name, spec), spec_key, spec)
