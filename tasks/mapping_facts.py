"""What a network that makes pseudo tokens was trained on, in words; no weights are loaded."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from storage.locations.location import Location


def token_network_trained_on(checkpoint: str) -> str:
    """`1,500 steps on 3,808 images of photos`, or `published FILE`; empty where nobody noted it.

    Args:
        checkpoint: A folder of `train-mapping`, or the file of a published network.
    """
    if PurePosixPath(checkpoint).suffix:
        return f"published {PurePosixPath(checkpoint).name}"
    location = Location(checkpoint)
    if not location.exists("config.json"):
        return ""
    summary = json.loads(location.read_bytes("config.json")).get("recipe", {}).get("summary", {})
    unit = next((name for name in ("images", "concepts") if name in summary), "")
    if not unit:
        return ""
    return f"{summary['steps']:,} steps on {summary[unit]:,} {unit} of {summary['collection']}"
