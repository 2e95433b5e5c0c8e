"""The whole story on the embedded world: drawn images and queries to scores and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task

from flows.evaluation import runnable_methods
from flows.profiles import resolve_profile
from flows.score_benchmark import evaluate
from storage.world.benchmarks import WorldSize, write_world
from tasks.query_sets import BenchmarkRef
from tasks.settings import Profile

SPLITS = {"cirr": ("val", "test1"), "circo": ("val", "test"), "fashioniq": ("val",)}
LEFT_OUT = ("cvsi-code", "cvsi-instructcir")
"""The released code joins all captions into one prompt, which the small text generator cannot."""


@task
def draw_world(folder: Path, size: WorldSize, seed: int) -> dict[str, str]:
    """Draw the three embedded benchmarks, unless they are there."""
    return {name: str(path) for name, path in write_world(folder, size, seed).items()}


def demo_methods(profile: Profile) -> list[str]:
    """What the demo compares."""
    return [name for name in runnable_methods(profile) if name not in LEFT_OUT]


@flow(name="demo", flow_run_name="demo")
def demo(
    out: str = "out/demo",
    seed: int = 0,
    profile: str = "tiny",
    settings: dict[str, Any] | None = None,
    submissions: bool = True,
) -> dict[str, Any]:
    """Run ingest, captions, edits, features, retrieval, metrics and the report once through.

    Args:
        out: Folder for everything that the demo makes.
        seed: Seed of the drawn world.
        profile: tiny, production, or a TOML file that extends one.
        settings: Dotted setting names and values that replace the profile's.
        submissions: Also rank the splits without public targets and write submission files.
    """
    folder = Path(out).resolve()
    chosen = resolve_profile(profile, {"root": str(folder / "tables"), **(settings or {})})
    roots = draw_world(folder / "world", WorldSize(), seed)
    splits = [(n, s) for n, known in SPLITS.items() for s in (known if submissions else known[:1])]
    outcome = evaluate(
        chosen,
        [BenchmarkRef(name=name, root=roots[name], split=split) for name, split in splits],
        demo_methods(chosen),
        folder,
        "cirflow demo",
        hidden_methods=["cvsi"],
        commands=[f"cirflow demo --seed {seed}", f"cirflow leaderboard --root {chosen.root}"],
    )
    return outcome.as_json()
