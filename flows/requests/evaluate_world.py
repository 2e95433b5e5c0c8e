"""What is asked of `evaluate-world`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.forms import BenchmarkName, MethodName, Overrides, ProfileName
from flows.profiles import resolve_profile
from flows.requests.checks import require_methods, require_out, require_root
from storage.benchmarks.registry import FAMILIES
from tasks.methods import runnable_methods
from tasks.settings import Profile


@dataclass(frozen=True)
class WorldsRequest:
    """Embedded worlds to score methods on."""

    profile: Profile
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    benchmarks: tuple[str, ...]
    subsets: int
    circo_queries: int
    fashion_queries: int
    folder: Path
    against: str


def evaluate_world(
    seeds: list[int],
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    methods: tuple[MethodName, ...] = (),
    benchmarks: tuple[BenchmarkName, ...] = (),
    subsets: int = 250,
    circo_queries: int = 300,
    fashion_queries: int = 100,
    out: str = "out/world",
    against: MethodName = "cvsi",
) -> WorldsRequest:
    """Draw one world per seed, score all methods on each and sum up over the seeds.

    Args:
        seeds: Seeds of the worlds.
        methods: Names of methods; none chosen means the demo's.
        benchmarks: Names of benchmarks; none chosen means all.
        subsets: CIRR-like groups of six; each gives two queries.
        circo_queries: CIRCO-like queries.
        fashion_queries: FashionIQ-like queries per category.
        out: Folder for worlds, tables, reports and the summary.
        against: The summary says how far the others are behind this method, where it is scored.
    """
    folder = Path(out).resolve()
    chosen = resolve_profile(profile, {"root": str(folder / "tables"), **(settings or {})})
    if not seeds:
        raise ValueError("give at least one seed: seeds=0")
    asked = methods or tuple(runnable_methods(chosen))
    require_methods(chosen, asked, FAMILIES)
    require_out(folder)
    require_root(chosen)
    return WorldsRequest(
        chosen,
        tuple(seeds),
        asked,
        benchmarks,
        subsets,
        circo_queries,
        fashion_queries,
        folder,
        against,
    )
