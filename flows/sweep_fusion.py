"""Sweep fusion weights from cached features: nothing is encoded again.

CVSI's alpha, beta and gamma, or the weight of InstructCIR next to CVSI under fixed weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from prefect import flow

from flows.forms import (
    PROFILE_CAPTIONING,
    PROFILE_WORK,
    BenchmarkChoice,
    BenchmarkName,
    Captioning,
    Overrides,
    ProfileName,
    Split,
    Work,
    with_choices,
)
from flows.ingest_collection import run_ingest
from flows.profiles import resolve_profile
from flows.running import RunLog, run_stages
from models.retrieval.cvsi_settings import CvsiWeights
from storage.locations.location import Location
from tasks.planner import plan_evaluation
from tasks.query_sets import image_folder
from tasks.redacted import redacting
from tasks.scoring.sweeps import share_grid, sweep_shares, sweep_weights, weight_grid
from tasks.settings import Profile


def every_part(profile: Profile, family: str) -> Profile:
    """The profile with a weight on every part of CVSI, so that every feature is made."""
    weights = {**profile.cvsi.weights, family: CvsiWeights(alpha=0.4, beta=0.4, gamma=0.5)}
    return profile.model_copy(update={"cvsi": profile.cvsi.changed(weights=weights)})


def both_methods(profile: Profile, family: str) -> Profile:
    """The profile with a weight on CVSI and on InstructCIR."""
    weights = {**profile.instructcir.weights, family: 0.5}
    own = profile.instructcir.model_copy(update={"weights": weights})
    return profile.model_copy(update={"instructcir": own})


@flow(
    name="sweep-fusion",
    flow_run_name="sweep {benchmark} {split}",
    persist_result=False,
    result_serializer="json",
)
@redacting
def sweep_fusion(
    benchmark: BenchmarkName,
    folder: str,
    split: Split = "val",
    step: float = 0.1,
    captioning: Captioning = PROFILE_CAPTIONING,
    work: Work = PROFILE_WORK,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    out: str = "out/sweep",
    collection: str = "",
    method: Literal["cvsi", "cvsi-instructcir"] = "cvsi",
) -> dict[str, Any]:
    """Try fusion weights on a grid; the best are printed and all are kept.

    Choose weights on one split and report on another.

    Args:
        benchmark: Name of the benchmark.
        folder: The benchmark's folder in its published layout, images included.
        split: A split with public targets.
        step: Grid step of the weights.
        out: Folder for the JSON file of all results.
        collection: Name of the image collection; empty: BENCHMARK-SPLIT.
        method: cvsi: every alpha, beta and gamma. cvsi-instructcir: every weight of InstructCIR.
    """
    choice = BenchmarkChoice(name=benchmark, folder=folder, split=split, collection=collection)
    chosen = resolve_profile(profile, with_choices(settings, captioning, work))
    ref = choice.ref(chosen)
    loaded = ref.load()
    run_ingest(chosen.root, image_folder(loaded), ref.collection_name)
    weighted = (every_part if method == "cvsi" else both_methods)(chosen, loaded.family)
    plan = plan_evaluation(weighted, ref, [method])
    log = RunLog()
    run_stages(plan.upstream, log, chosen.allow_gaps)
    if method == "cvsi":
        results = sweep_weights(plan.rankings[0], weight_grid(step))
    else:
        results = sweep_shares(plan.rankings[0], share_grid(step))
    file = (
        f"{ref.collection_name}.json"
        if method == "cvsi"
        else f"{ref.collection_name}-{method}.json"
    )
    Location(out).replace(file, json.dumps(results, indent=1).encode())
    return {
        "stages": [stage.as_json() for stage in log.stages],
        "tried": len(results),
        "best": results[:5],
        "all": str(Path(out, file).resolve()),
    }
