"""The whole pipeline on the embedded world: drawn images and queries to scores and a report.

CVSI and the shipped InstructCIR network answer the queries, and another InstructCIR network is
trained briefly from pictures without any text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from embedded_world.training_parameters import EMBEDDED_TRAINING
from embedded_world.unlabelled_collections import UnlabelledSize, write_unlabelled
from flows.evaluate_world import demo_world
from flows.forms import SPLITS
from flows.generate_triplets import generate_triplets
from flows.ingest_collection import run_ingest
from flows.profiles import resolve_profile
from flows.requests import demo as requests
from flows.requests.demo import DemoRequest
from flows.requests.prepared import prepared_by
from flows.score_benchmark import Outcome, evaluate
from flows.train_reformulation import train_reformulation
from tasks.methods import runnable_methods
from tasks.query_sets import BenchmarkRef
from tasks.redacted import redacting
from tasks.settings import Profile
from tasks.unrecorded import run_subflow, run_task

PICTURES: Final = UnlabelledSize(ranges=500, sets=500)
TRIPLETS: Final = 2000
TRAINING: Final = {
    **EMBEDDED_TRAINING,
    "training": {**EMBEDDED_TRAINING["training"], "max_steps": 40},
    "ema": {"start": 0.9},
}
"""In so few steps a moving average that starts at .996 would hardly move."""

COMPARED: Final = ("image-only", "text-only", "image-text-sum", "lincir", "instructcir")
"""Methods that the demo's own network is compared with, and that network."""


@flow(name="demo", flow_run_name="demo", persist_result=False, result_serializer="json")
@redacting
@prepared_by(requests.demo)
def demo(asked: DemoRequest) -> dict[str, Any]:
    """Draw, evaluate, train and evaluate again."""
    folder, chosen, seed = asked.folder, asked.profile, asked.seed
    roots = demo_world(folder, seed)
    splits = [(n, s) for n in roots for s in (SPLITS[n] if asked.submissions else SPLITS[n][:1])]
    outcome = evaluate(
        chosen,
        [BenchmarkRef(name=name, root=roots[name], split=split) for name, split in splits],
        runnable_methods(chosen),
        folder,
        "cirflow demo",
        hidden_methods=["cvsi"],
        commands=[f"cirflow demo --seed {seed}", f"cirflow leaderboard --root {chosen.root}"],
    )
    if not asked.training:
        return outcome.as_json()
    refs = [BenchmarkRef(name=name, root=roots[name], split="val") for name in roots]
    trained = train_from_images(
        folder, asked.profile_name, asked.changes, seed, [ref.collection_name for ref in refs]
    )
    return outcome.as_json() | {"trained": _score_trained(chosen, refs, trained, folder)}


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
    root = resolve_profile(profile, settings).root
    drawn = run_task(draw_pictures, folder / "pictures", PICTURES, seed)
    for name, place in drawn.items():
        run_ingest(root, place, name)
    made = run_subflow(
        generate_triplets,
        collections=sorted(drawn),
        count=TRIPLETS,
        profile=profile,
        settings=dict(settings),
        seed=seed,
        guard=list(guard),
        guard_names=False,  # drawn files are merely numbered
        out=str(folder / "triplets"),
    )
    network = run_subflow(
        train_reformulation,
        triplets=made["triplets"],
        profile=profile,
        settings=dict(settings),
        seed=seed,
        **TRAINING,
    )
    return {"triplets": made, "network": network}


@task(cache_policy=NO_CACHE)
@redacting
def draw_pictures(folder: Path, size: UnlabelledSize, seed: int) -> dict[str, str]:
    """Draw the unlabelled collections, unless they are there."""
    return {name: str(path) for name, path in write_unlabelled(folder, size, seed).items()}


def _score_trained(
    profile: Profile, refs: Sequence[BenchmarkRef], trained: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Scores of the network that was just trained."""
    checkpoint = trained["network"]["checkpoint"]
    own = profile.instructcir.model_copy(update={"checkpoint": checkpoint})
    outcome: Outcome = evaluate(
        profile.model_copy(update={"instructcir": own}),
        refs,
        COMPARED,
        folder / "trained",
        "InstructCIR, trained in this demo",
    )
    shown = ("report", "scores", "main_metrics", "differs", "stages")
    return {
        "checkpoint": checkpoint,
        "triplet_report": trained["triplets"]["report"],
        "triplets": sum(trained["triplets"]["statuses"].values()),
        "steps": trained["network"]["step"],
        **{name: value for name, value in outcome.as_json().items() if name in shown},
    }
