"""What is asked of `evaluate-world`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from flows.forms import BenchmarkName, MethodName, Overrides, ProfileName
from flows.profiles import resolve_profile
from flows.requests.checks import require_methods, require_out, require_root, require_seeds
from flows.requests.train_systems import TRAINABLE, untrained
from models.retrieval.methods import METHODS, first_stage
from storage.benchmarks.registry import FAMILIES
from tasks.methods import runnable_methods
from tasks.settings import Profile

WorldKind = Literal["usual", "harder", "pointing"]
"""Kind of a drawn world."""


@dataclass(frozen=True)
class WorldsRequest:
    """Embedded worlds to score methods on.

    Attributes:
        profile: Engines and settings.
        profile_name: The profile as it was given.
        changes: The settings that it was given, its root among them.
        trained: Systems that are trained on drawn pictures first.
    """

    profile: Profile
    profile_name: str
    changes: dict[str, Any]
    trained: tuple[str, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    benchmarks: tuple[str, ...]
    subsets: int | None
    circo_queries: int | None
    fashion_queries: int | None
    kind: WorldKind
    folder: Path
    against: str


def evaluate_world(
    seeds: list[int],
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    methods: tuple[MethodName, ...] = (),
    benchmarks: tuple[BenchmarkName, ...] = (),
    subsets: Annotated[int, Field(ge=1)] | None = None,
    circo_queries: Annotated[int, Field(ge=1)] | None = None,
    fashion_queries: Annotated[int, Field(ge=1)] | None = None,
    harder: bool = False,
    pointing: bool = False,
    out: str = "out/world",
    against: MethodName = "cvsi",
    train: bool = False,
) -> WorldsRequest:
    """Draw one world per seed, score all methods on each and sum up over the seeds.

    Args:
        seeds: Seeds of the worlds.
        methods: Names of methods; none chosen means the demo's.
        benchmarks: Names of benchmarks; none chosen means all.
        subsets: CIRR-like groups of six; each gives two queries. None: 250, in a harder world 850.
        circo_queries: CIRCO-like queries. None: 300, in a harder world 260.
        fashion_queries: FashionIQ-like queries per category. None: 100, in a harder world 250.
        harder: Worlds whose queries ask for two changes at once, with galleries of more than 5,000
            pictures: those with one of the two changes, and lookalikes of the target.
        pointing: Harder worlds whose texts point at a thing by another one ("the object above the
            red circle") or at two things that change alike ("both stars").
        out: Folder for worlds, tables, reports and the summary.
        against: The summary says how far the others are behind this method, where it is scored.
        train: Train the comparison systems among the methods (all, if none are chosen) on drawn
            pictures first, each once; that takes about two hours of one CPU core.
    """
    folder = Path(out).resolve()
    changes = {"root": str(folder / "tables"), **(settings or {})}
    chosen = resolve_profile(profile, changes)
    if not seeds:
        raise ValueError("give at least one seed: seeds=0")
    require_seeds(seeds)
    asked = methods or tuple(runnable_methods(chosen))
    first = tuple(dict.fromkeys(map(first_stage, methods)))
    trained = untrained(chosen, first or tuple(TRAINABLE)) if train else ()
    ready = [name for name in asked if first_stage(name) not in trained]
    require_methods(chosen, ready, FAMILIES)
    require_out(folder)
    require_root(chosen)
    return WorldsRequest(
        chosen,
        profile,
        changes,
        trained,
        tuple(seeds),
        tuple(dict.fromkeys((*asked, *(name for name in trained if name in METHODS)))),
        benchmarks,
        subsets,
        circo_queries,
        fashion_queries,
        "pointing" if pointing else "harder" if harder else "usual",
        folder,
        against,
    )
