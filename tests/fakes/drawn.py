"""Folders of drawn pictures, and the tiny profile with small values for tests."""

from __future__ import annotations

from pathlib import Path
from random import Random

from embedded_world.drawing import draw
from embedded_world.scenes import sample_scenes
from flows.profiles import resolve_profile
from tasks.settings import Profile


def draw_folder(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Draw some held-out scenes as PNG files; returns their paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, scene in enumerate(sample_scenes(Random(seed), count, held_out=True)):
        paths.append(folder / f"{number:04d}.png")
        draw(scene, seed * 100_003 + number).save(paths[-1])
    return paths


def small_profile(root: Path | str, captions: int = 2, shard: int = 4) -> Profile:
    """The tiny profile with tables at `root`, few captions an image and small shards."""
    return resolve_profile("tiny", small_settings(root, captions, shard))


def small_settings(root: Path | str, captions: int = 2, shard: int = 4) -> dict[str, object]:
    """Those values as settings for a flow or for `--set`."""
    return {
        "root": str(root),
        "cvsi.captions_per_image": captions,
        "shards.captions": shard,
        "captions.max_new_tokens": 16,
    }
