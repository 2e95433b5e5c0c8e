"""The spec.json of a table: what produced its rows. Its key names the folder, and so proves it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from storage.locations.damage import DamagedFile, read_checked
from storage.locations.location import Location
from storage.tables.keys import content_key
from storage.tables.plans import SpecConflict


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


def spec_text(spec: Mapping[str, Any]) -> bytes:
    """Return the content of spec.json."""
    text = json.dumps(spec, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()
