"""Sweep fusion weights from cached features: nothing is encoded again.

CVSI's alpha, beta and gamma and its number of target captions (Figure 4 of the paper), or the
weight of InstructCIR or of an embedding model next to CVSI under fixed weights; or how a verifier's
verdicts are fused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import State

from flows import run_names
from flows.ingest_collection import run_ingest
from flows.requests import sweep_fusion as requests
from flows.requests.prepared import prepared_by
from flows.running import RunLog, run_stages
from flows.summaries import summed_up
from models.retrieval.methods import method
from models.retrieval.systems.composed_embedding import EMBEDDING
from storage.locations.location import Location
from tasks.artifact_keys import artifact_key
from tasks.artifacts import publish_markdown
from tasks.methods import late_weights
from tasks.planner import plan_evaluation
from tasks.query_sets import image_folder, is_embedded_world
from tasks.redacted import redacting
from tasks.report.charts import chart_file, chart_markdown
from tasks.report.sweeps import figure_charts, sweeps_page
from tasks.scoring.figure_four import plan_figure, read_figure
from tasks.scoring.sweeps import best_first, grid_points, sweep_shares
from tasks.scoring.verify_sweeps import sweep_verified, verify_grid
from tasks.settings import Profile
from tasks.stages.verified import VerifiedStage


def both_methods(profile: Profile, name: str, family: str) -> Profile:
    """The profile with a weight on both methods of a late fusion."""
    weights = {**late_weights(name, profile), family: 0.5}
    if method(name).blends == ("cvsi", EMBEDDING):
        return profile.model_copy(update={"embedding_weights": weights})
    own = profile.instructcir.model_copy(update={"weights": weights})
    return profile.model_copy(update={"instructcir": own})


@flow(
    name="sweep-fusion",
    flow_run_name=run_names.sweep,
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.sweep_fusion)
def sweep_fusion(asked: requests.SweepRequest) -> State[Any]:
    """Make the features once, then score every point of the grid."""
    chosen, ref = asked.profile, asked.ref
    run_ingest(chosen.root, image_folder(ref.load()), ref.collection_name)
    log = RunLog()
    if asked.method == "cvsi":
        return summed_up(_swept_weights(asked, log))
    if method(asked.method).verifies:
        return summed_up(_swept_verdicts(asked, log))
    weighted = both_methods(chosen, asked.method, ref.load().family)
    plan = plan_evaluation(weighted, ref, [asked.method])
    run_stages(plan.upstream, log, chosen.allow_gaps)
    results = sweep_shares(plan.rankings[0], grid_points(asked.step))
    return summed_up(_published(asked, log, results, f"{ref.collection_name}-{asked.method}"))


def _swept_weights(asked: requests.SweepRequest, log: RunLog) -> dict[str, Any]:
    """Every alpha, beta and gamma, and each number of target captions; drawn as Figure 4."""
    chosen, ref = asked.profile, asked.ref
    most = asked.target_captions or chosen.cvsi.captions_of_target
    plan = plan_figure(chosen, ref, asked.step, most, whole=True)
    run_stages(plan.stages, log, chosen.allow_gaps)
    figure, name = read_figure(plan), ref.collection_name
    page = sweeps_page([figure], is_embedded_world(ref.root))
    Location(asked.out).replace(f"{name}.html", page.encode())
    for kind, chart in zip(("weights", "gamma", "targets"), figure_charts(figure), strict=False):
        Location(asked.out).replace(f"{name}-{kind}.svg", chart_file(chart).encode())
    shown = "\n\n".join(map(chart_markdown, figure_charts(figure)))
    publish_markdown(artifact_key("sweep", name), shown, f"Fusion weights on {name}")
    made = _published(asked, log, best_first(plan.plane), name)
    return {
        **made,
        "target_captions": {str(n): round(value, 3) for n, value in figure.targets},
        "page": str(Path(asked.out, f"{name}.html").resolve()),
    }


def _swept_verdicts(asked: requests.SweepRequest, log: RunLog) -> dict[str, Any]:
    """Every rule, weight and K, from verdicts that are made once."""
    chosen, ref = asked.profile, asked.ref
    plan = plan_evaluation(chosen, ref, [asked.method])
    run_stages(plan.upstream, log, chosen.allow_gaps)
    (stage,) = plan.rankings
    assert isinstance(stage, VerifiedStage), asked.method
    in_lists = chosen.verify.mode == "listwise"
    grid = verify_grid(stage.verifications.count, grid_points(asked.step), in_lists)
    results, name = sweep_verified(stage, grid), f"{ref.collection_name}-{asked.method}"
    return _published(asked, log, results, name)


def _published(
    asked: requests.SweepRequest, log: RunLog, results: Sequence[Mapping[str, Any]], name: str
) -> dict[str, Any]:
    """All results in a file, the best in the summary."""
    Location(asked.out).replace(f"{name}.json", json.dumps(results, indent=1).encode())
    return {
        "stages": [stage.as_json() for stage in log.stages],
        "tried": len(results),
        "best": results[:5],
        "all": str(Path(asked.out, f"{name}.json").resolve()),
    }
