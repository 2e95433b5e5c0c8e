"""What a form can offer: collections, benchmarks, backbones, networks and triplets that exist."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from flows.profiles import EMBEDDED, PROFILES
from models.encoders.spec import CONFIG_FILE
from storage.collections.known import list_collections
from storage.locations.location import Location

Choices = Mapping[str, tuple[str, ...]]
"""Kind of choice -> the names that exist."""

BACKBONES: Final = ("ViT-B-32-quickgelu", "ViT-L-14-quickgelu", "ViT-H-14", "ViT-bigG-14")
"""open_clip's names of the backbones that the papers evaluate."""
TAGS: Final = ("openai", "laion2b_s32b_b79k", "laion2b_s39b_b160k")
"""Tags of their weights."""
BENCHMARK_PLACES: Final = ("benchmarks", "data", "out/demo/world")
"""Folders, of which each folder inside is a benchmark."""


def choices_of(root: str, home: Path) -> Choices:
    """What exists under a root and in the folder that runs work in.

    Args:
        root: Root of the tables.
        home: Folder in which relative paths start.
    """
    location = Location(root)
    networks = _networks(location)
    files = [str(path.relative_to(home)) for path in sorted(home.glob("checkpoints/*"))]
    return {
        "collection": tuple(list_collections(location)),
        "benchmark": tuple(_folders(home, BENCHMARK_PLACES)),
        "backbone": (*_shipped("clip*"), *_backbones(home), *BACKBONES),
        "tag": TAGS,
        "mapping": (*networks.get("mapping", ()), *files, str(EMBEDDED / "lincir")),
        "network": (*networks.get("reformulation", ()), str(EMBEDDED / "instructcir")),
        "triplets": tuple(_triplets(home)),
        "profile": (*PROFILES, *_profile_files(home)),
    }


def _networks(location: Location) -> dict[str, list[str]]:
    """Kind -> folders of published trainings."""
    found: dict[str, list[str]] = {}
    for path in location.list("checkpoints"):
        _, kind, key, *rest = path.split("/")
        if rest == ["config.json"]:
            found.setdefault(kind, []).append(location.join(f"checkpoints/{kind}/{key}"))
    return found


def _folders(home: Path, places: Iterable[str]) -> Iterator[str]:
    for place in places:
        for folder in sorted((home / place).glob("*/")):
            yield str(folder.relative_to(home))


def _triplets(home: Path) -> list[str]:
    """Files of triplets, the latest first."""
    found = [*home.glob("triplets.json"), *home.glob("out/**/triplets.json")]
    files = sorted(found, key=lambda path: -path.stat().st_mtime)
    return [str(file.relative_to(home)) for file in files]


def _shipped(pattern: str) -> tuple[str, ...]:
    return tuple(str(folder) for folder in sorted(EMBEDDED.glob(pattern)))


def _backbones(home: Path) -> list[str]:
    files = sorted(home.glob(f"checkpoints/*/{CONFIG_FILE}"))
    return [str(file.parent.relative_to(home)) for file in files]


def _profile_files(home: Path) -> list[str]:
    """Names of the TOML files that extend a profile."""
    found = []
    for file in sorted(home.glob("*.toml")):
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError):  # not for us: some other program's, or half written
            continue
        if values.get("extends") in PROFILES:
            found.append(file.name)
    return found
