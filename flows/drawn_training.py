"""Trainings on drawn pictures: InstructCIR for the demo, and every comparison system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from prefect import task
from prefect.cache_policies import NO_CACHE

from embedded_world.training_parameters import (
    DEMO_PICTURES,
    DEMO_TRAINING,
    DEMO_TRIPLETS,
    SYSTEM_PICTURES,
    SYSTEM_TRAINING,
    SYSTEM_TRIPLETS,
    WORD_PICTURES,
)
from embedded_world.unlabelled_collections import UnlabelledSize, write_unlabelled
from flows.generate_triplets import generate_triplets
from flows.ingest_collection import run_ingest
from flows.profiles import resolve_profile
from flows.train_reformulation import train_reformulation
from flows.train_systems import train_systems
from tasks.redacted import redacting
from tasks.unrecorded import run_subflow, run_task

WORDS: Final = "systems-words"
"""Collection whose images pseudo-word tokens are learned on."""


def train_from_images(
    folder: Path, profile: str, settings: Mapping[str, Any], seed: int, guard: Sequence[str]
) -> dict[str, Any]:
    """InstructCIR from pictures alone: pairs, captions, texts, network; each stage is resumable.

    Args:
        folder: Folder of pictures and of the report on the triplets.
        profile: Name of the profile.
        settings: Dotted setting names and values that replace the profile's.
        seed: Seed of pictures, pairs and network.
        guard: Collections whose images must not be trained on.
    """
    made = _drawn_triplets(folder, profile, settings, DEMO_PICTURES, DEMO_TRIPLETS, seed, guard)
    network = run_subflow(
        train_reformulation,
        triplets=made["triplets"],
        profile=profile,
        settings=dict(settings),
        seed=seed,
        **DEMO_TRAINING,
    )
    return {"triplets": made, "network": network}


def train_comparison_systems(
    folder: Path, profile: str, settings: Mapping[str, Any], systems: Sequence[str] = ()
) -> dict[str, str]:
    """Every system that learns, on drawn pictures and generated texts; what is published is kept.

    Args:
        folder: Folder of pictures, of the report on the triplets, and of trained.toml.
        profile: Name of the profile.
        settings: Dotted setting names and values that replace the profile's.
        systems: What is trained; empty: everything that can be.

    Returns:
        Setting of a profile -> folder of the network.
    """
    made = _drawn_triplets(
        folder, profile, settings, SYSTEM_PICTURES, SYSTEM_TRIPLETS, 0, (), "systems-"
    )
    run_task(draw_pictures, folder / WORDS, WORD_PICTURES, 1)
    run_ingest(resolve_profile(profile, settings).root, str(folder / WORDS), WORDS)
    trained = run_subflow(
        train_systems,
        triplets=made["triplets"],
        systems=list(systems) or None,
        collection=WORDS,
        parameters=SYSTEM_TRAINING,
        profile=profile,
        settings=dict(settings),
        out=str(folder),
    )
    found: dict[str, str] = trained["settings"]
    return found


def _drawn_triplets(
    folder: Path,
    profile: str,
    settings: Mapping[str, Any],
    size: UnlabelledSize,
    count: int,
    seed: int,
    guard: Sequence[str],
    prefix: str = "",
) -> dict[str, Any]:
    """Draw and ingest pictures, under names with a prefix, and generate triplets from them."""
    root = resolve_profile(profile, settings).root
    places = run_task(draw_pictures, folder / "pictures", size, seed)
    drawn = {prefix + name: place for name, place in places.items()}
    for name, place in drawn.items():
        run_ingest(root, place, name)
    made: dict[str, Any] = run_subflow(
        generate_triplets,
        collections=sorted(drawn),
        count=count,
        profile=profile,
        settings=dict(settings),
        seed=seed,
        guard=list(guard),
        guard_names=False,  # drawn files are merely numbered
        out=str(folder / "triplets"),
    )
    return made


@task(cache_policy=NO_CACHE)
@redacting
def draw_pictures(folder: Path, size: UnlabelledSize, seed: int) -> dict[str, str]:
    """Draw the unlabelled collections, unless they are there."""
    return {name: str(path) for name, path in write_unlabelled(folder, size, seed).items()}
