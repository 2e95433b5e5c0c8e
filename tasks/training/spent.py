"""The time that a training took, next to what it published."""

from __future__ import annotations

import functools
import json
from typing import Final

from storage.locations.location import Location

FILE: Final = "cost.json"
"""In the folder of a published training: it identifies nothing, and may be missing."""
_RECIPE: Final = "recipe.json"
"""The same of the models that ship with cirflow; `cpu_seconds` on one thread."""


def cost_file(seconds: float, devices: int = 1) -> bytes:
    """The content of `FILE`.

    Args:
        seconds: Wall time of all steps that are in the result; steps that a crash lost are not.
        devices: Devices that worked at the same time.
    """
    return json.dumps({"seconds": round(seconds, 3), "devices": devices}).encode() + b"\n"


@functools.lru_cache(maxsize=16)
def training_hours(folder: str) -> float | None:
    """Hours that training the network in a folder took; None where nobody wrote it down."""
    location = Location(folder)
    for name, field in ((FILE, "seconds"), (_RECIPE, "cpu_seconds")):
        if location.exists(name):
            said = json.loads(location.read_bytes(name)).get(field)
            if isinstance(said, int | float):
                return said / 3600
    return None
