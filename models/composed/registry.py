"""Every composed query encoder that is trained or loaded here, by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final

from models.composed.system_record import ComposedSystem
from models.spelling import unknown

NAMES: Final[tuple[str, ...]] = (
    "covr",
    "case",
    "transagg",
    "clip4cir_sum",
    "clip4cir",
    "blip4cir_bi_sum",
    "blip4cir_bi",
    "candidate_filter",
    "candidate_rerank",
    "tuned_embedding",
    "magiclens",
)
"""Files in `models/composed`: each has a SYSTEM."""

SYSTEMS: Final[Mapping[str, ComposedSystem]] = MappingProxyType(
    {
        system.name: system
        for system in (import_module(f"models.composed.{name}").SYSTEM for name in NAMES)
    }
)


def system(name: str) -> ComposedSystem:
    """A system by name.

    Raises:
        ValueError: The name is unknown; the nearest known one is named.
    """
    if name not in SYSTEMS:
        raise ValueError(unknown("system", name, SYSTEMS))
    return SYSTEMS[name]


def require_importable(name: str) -> None:
    """Refuse a system of which nobody published a checkpoint.

    Raises:
        ValueError: It must be trained.
    """
    record = system(name)
    if record.published is None:
        raise ValueError(
            f"no checkpoint of {record.title} is public; train one (cirflow run train-composed "
            f"--set system={name})"
        )
