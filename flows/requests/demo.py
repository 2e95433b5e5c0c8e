"""What is asked of `demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.forms import Overrides, ProfileName
from flows.profiles import resolve_profile
from flows.requests.checks import require_methods, require_out, require_root, require_seeds
from storage.benchmarks.registry import FAMILIES
from tasks.methods import runnable_methods
from tasks.settings import Profile


@dataclass(frozen=True)
class DemoRequest:
    """The whole story on one drawn world.

    Attributes:
        profile: Engines and settings.
        profile_name: The profile as it was given.
        changes: The settings that it was given, its root among them.
        folder: Folder for everything.
        seed: Seed of the drawn world.
        submissions: Whether splits without public targets are ranked too.
        training: Whether a network is trained too.
    """

    profile: Profile
    profile_name: str
    changes: dict[str, Any]
    folder: Path
    seed: int
    submissions: bool
    training: bool


def demo(
    out: str = "out/demo",
    seed: int = 0,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    submissions: bool = True,
    training: bool = True,
) -> DemoRequest:
    """Run ingest, captions, edits, features, retrieval, metrics and the report once through.

    Args:
        out: Folder for everything that the demo makes.
        seed: Seed of the drawn world.
        submissions: Rank the splits without public targets too, and write submission files.
        training: Train an InstructCIR network from unlabelled pictures too, and score it.
    """
    require_seeds([seed])
    folder = Path(out).resolve()
    changes = {"root": str(folder / "tables"), **(settings or {})}
    chosen = resolve_profile(profile, changes)
    require_methods(chosen, runnable_methods(chosen), FAMILIES)
    require_out(folder)
    require_root(chosen)
    return DemoRequest(chosen, profile, changes, folder, seed, submissions, training)
