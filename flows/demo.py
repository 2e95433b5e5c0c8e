"""The whole pipeline on the embedded world: drawn images and queries to scores and a report.

CVSI and the shipped InstructCIR network answer the queries, and another InstructCIR network is
trained briefly from pictures without any text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from prefect import flow
from prefect.states import State

from flows.drawn_training import train_from_images
from flows.evaluate_world import demo_world
from flows.forms import SPLITS
from flows.requests import demo as requests
from flows.requests.demo import DemoRequest
from flows.requests.prepared import prepared_by
from flows.score_benchmark import Outcome, evaluate
from flows.summaries import summed_up
from tasks.methods import runnable_methods
from tasks.query_sets import BenchmarkRef
from tasks.redacted import redacting
from tasks.settings import Profile

COMPARED: Final = ("image-only", "text-only", "image-text-sum", "lincir", "instructcir")
"""Methods that the demo's own network is compared with, and that network."""


@flow(name="demo", flow_run_name="demo", persist_result=False, result_serializer="json")
@redacting
@prepared_by(requests.demo)
def demo(asked: DemoRequest) -> State[Any]:
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
        return summed_up(outcome.as_json())
    refs = [BenchmarkRef(name=name, root=roots[name], split="val") for name in roots]
    trained = train_from_images(
        folder, asked.profile_name, asked.changes, seed, [ref.collection_name for ref in refs]
    )
    own = _score_trained(chosen, refs, trained, folder)
    return summed_up(outcome.as_json() | {"trained": own})


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
