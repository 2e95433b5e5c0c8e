"""The spec.json of a table: what produced its rows. Its key names the folder, and so proves it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from storage.locations.damage import DamagedFile, read_checked
from storage.locations.location import Location
from storage.tables.keys import content_key
from storage.tables.plans import SpecConflict

SHOWN: Final = 8
"""Keys that a message about an unknown one lists."""


class UnknownTable(FileNotFoundError):
    """No table has a key; the message lists keys that some have, and says what to do."""


def read_spec(location: Location, name: str, spec_key: str) -> dict[str, Any]:
    """Return the spec of a table.

    Raises:
        FileNotFoundError: there is none.
        SpecConflict: its content does not have the key.
    """
    path = f"{name}/{spec_key}/spec.json"

    def parse(data: bytes) -> dict[str, Any]:
        spec = json.loads(data)
        if not isinstance(spec, dict) or content_key(spec) != spec_key:
            raise ValueError("its content does not have the key that its folder is named by")
        return spec

    try:
        return read_checked(location, path, parse)
    except DamagedFile as error:
        raise SpecConflict(
            f"{error.path} was changed: {error.what}. A spec is never edited: `cirflow cache"
            " repair` puts it aside, and writes it again where the parts still hold it; else the"
            " next run of its flow does"
        ) from error


def find_spec(location: Location, name: str, spec_key: str) -> dict[str, Any] | None:
    """As `read_spec`, but None where there is none."""
    try:
        return read_spec(location, name, spec_key)
    except FileNotFoundError:
        return None


def known_spec(location: Location, name: str, spec_key: str) -> dict[str, Any]:
    """As `read_spec`, of a table that somebody named.

    Raises:
        UnknownTable: no table of that name has the key.
        SpecConflict: its content does not have the key.
    """
    if (found := find_spec(location, name, spec_key)) is not None:
        return found
    paths = (entry.path.split("/") for entry in location.entries(name))
    known = sorted(path[1] for path in paths if path[-1] == "spec.json")
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    raise UnknownTable(
        f"{location} holds no {name} of the key {spec_key!r}; it holds "
        f"{', '.join(known[:SHOWN]) or 'none'}{more}. `cirflow cache ls` says what made each. "
        "Name one of them, name the root that holds it (root=DIR), or repeat the run that made it"
    )


def spec_text(spec: Mapping[str, Any]) -> bytes:
    """Return the content of spec.json."""
    text = json.dumps(spec, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()
