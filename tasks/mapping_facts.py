"""What a network that makes pseudo tokens was trained on, in words; no weights are loaded."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from storage.locations.location import Location
from tasks.networks import why_not_zero_shot


def token_network_trained_on(checkpoint: str) -> str:
    """`1,500 steps on 3,808 images of photos`, or `published FILE`; empty where nobody noted it.

    Args:
        checkpoint: A folder of `train-mapping`, or the file of a published network.
    """
    recipe = _recipe(checkpoint)
    if recipe is None and PurePosixPath(checkpoint).suffix:
        return f"published {PurePosixPath(checkpoint).name}"
    summary = (recipe or {}).get("summary", {})
    unit = next((name for name in ("images", "concepts") if name in summary), "")
    if not unit:
        return ""
    return f"{summary['steps']:,} steps on {summary[unit]:,} {unit} of {summary['collection']}"


def token_network_not_zero_shot(checkpoint: str) -> str:
    """Why results with a network must not be called zero-shot; empty where they may be.

    Args:
        checkpoint: As above; a published file says nothing.
    """
    return why_not_zero_shot({"zero_shot": True, **(_recipe(checkpoint) or {})})


def _recipe(checkpoint: str) -> dict[str, Any] | None:
    """How a network was trained, as its folder says it; None for a file, or where none lies."""
    location = Location(checkpoint)
    if not location.exists("config.json"):
        return None
    found: dict[str, Any] = json.loads(location.read_bytes("config.json")).get("recipe", {})
    return found
