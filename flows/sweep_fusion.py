"""Sweep fusion weights from cached features: nothing is encoded again.

CVSI's alpha, beta and gamma, or the weight of InstructCIR next to CVSI under fixed weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow

from flows.ingest_collection import run_ingest
from flows.requests import sweep_fusion as requests
from flows.requests.prepared import prepared_by
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
@prepared_by(requests.sweep_fusion)
def sweep_fusion(asked: requests.SweepRequest) -> dict[str, Any]:
    """Make the features once, then score every point of the grid."""
    chosen, ref, method = asked.profile, asked.ref, asked.method
    loaded = ref.load()
    run_ingest(chosen.root, image_folder(loaded), ref.collection_name)
    weighted = (every_part if method == "cvsi" else both_methods)(chosen, loaded.family)
    plan = plan_evaluation(weighted, ref, [method])
    log = RunLog()
    run_stages(plan.upstream, log, chosen.allow_gaps)
    if method == "cvsi":
        results = sweep_weights(plan.rankings[0], weight_grid(asked.step))
    else:
        results = sweep_shares(plan.rankings[0], share_grid(asked.step))
    file = (
        f"{ref.collection_name}.json"
        if method == "cvsi"
        else f"{ref.collection_name}-{method}.json"
    )
    Location(asked.out).replace(file, json.dumps(results, indent=1).encode())
    return {
        "stages": [stage.as_json() for stage in log.stages],
        "tried": len(results),
        "best": results[:5],
        "all": str(Path(asked.out, file).resolve()),
    }
