"""A drawn world together with the scenes that its pictures show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from embedded_world import benchmarks
from embedded_world.benchmarks import Gallery, WorldSize
from embedded_world.scenes import Scene

NotedWorld = tuple[Mapping[str, Path], Mapping[str, Scene]]
"""Benchmark -> folder, and picture file -> scene."""


class Write(Protocol):
    """Writes a world of a size and seed below a folder."""

    def __call__(self, root: Path, size: WorldSize, seed: int) -> dict[str, Path]:
        """Benchmark -> folder."""


def noted_world(write: Write, folder: Path, size: WorldSize, seed: int) -> NotedWorld:
    """The world, and the scene of every picture file."""
    drawn: dict[str, Scene] = {}
    write_pictures = benchmarks._write_pictures

    def noting(place: Path, gallery: Gallery, suffix: str, picture_seed: int) -> None:
        drawn.update({str(place / f"{n}.{suffix}"): s for n, s in gallery.scenes.items()})
        write_pictures(place, gallery, suffix, picture_seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarks, "_write_pictures", noting)
        return write(folder, size, seed), drawn
