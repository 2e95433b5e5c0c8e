"""Scaling: train on nested sets of triplets and plot quality against their number.

As in InstructCIR's Table IV and Figure 1, with parts left out as in its Table V, and with other
sets of triplets in place of the given one: the smaller sets are the beginnings of the larger
ones, everything else stays the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import State

from flows.evaluate_world import drawn_benchmarks
from flows.form_fields import Values
from flows.ingest_collection import run_ingest
from flows.requests import scaling as requests
from flows.requests.prepared import prepared_by
from flows.requests.scaling import WITHOUT, ScalingRequest, Variant
from flows.requests.train_reformulation import groups_of
from flows.running import RunLog, run_stage, run_stages
from flows.summaries import summed_up
from flows.train_reformulation import train_network_on
from models.retrieval.bootstrap import Draws, interval, mean, mean_draws
from models.spelling import counted
from storage.benchmarks.registry import benchmark_facts
from storage.locations.location import Location
from tasks.artifact_keys import artifact_key
from tasks.artifacts import publish_markdown
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder, is_embedded_world
from tasks.redacted import redacting
from tasks.report.markdown import markdown_table, plain
from tasks.report.scaling import Comparison, Measured, Panel, scaling_page
from tasks.scoring.run import score_method
from tasks.scoring.scores import MethodScores
from tasks.settings import Profile
from tasks.training.triplet_sets import TripletSet
from tasks.unrecorded import run_task

Scores = dict[str, list[MethodScores]]
"""Benchmark -> the scores of one network, world by world."""


@flow(
    name="scaling", flow_run_name="scaling {sizes}", persist_result=False, result_serializer="json"
)
@redacting
@prepared_by(requests.scaling)
def scaling(asked: ScalingRequest) -> State[Any]:
    """Train and score each network, and plot."""
    chosen, folder, worlds = asked.profile, asked.folder, asked.worlds
    refs = list(asked.refs)
    for seed in worlds.seeds:
        refs += drawn_benchmarks(
            folder, seed, worlds.subsets, worlds.circo_queries, worlds.fashion_queries
        )
    log = RunLog()
    scores = {
        variant: _scored(
            chosen,
            asked.other_triplets.get(variant.source, asked.triplets),
            variant,
            asked.training,
            asked.method,
            refs,
            log,
        )
        for variant in asked.variants
    }
    lines = {name: _score(chosen, refs, name, log) for name in asked.others}
    return summed_up(_publish(folder, refs, scores, lines))


def _scored(
    profile: Profile,
    triplets: TripletSet,
    variant: Variant,
    training: Values,
    method: str,
    refs: Sequence[BenchmarkRef],
    log: RunLog,
) -> Scores:
    """Train one network, unless it is published, and score it."""
    groups = dict(training)
    for group, changes in (WITHOUT[variant.without] if variant.without else {}).items():
        groups[group] = {**groups.get(group, {}), **changes}
    own_triplets = triplets.first(variant.triplets)
    checkpoint = train_network_on(profile, own_triplets, groups_of(groups), variant.name)
    own = profile.instructcir.model_copy(update={"checkpoint": checkpoint})
    return _score(profile.model_copy(update={"instructcir": own}), refs, method, log)


def _score(profile: Profile, refs: Sequence[BenchmarkRef], method: str, log: RunLog) -> Scores:
    scores: Scores = {}
    for ref in refs:
        run_ingest(profile.root, image_folder(ref.load()), ref.collection_name)
        plan = plan_evaluation(profile, ref, [method])
        run_stages(plan.upstream, log, profile.allow_gaps)
        ranking = plan.rankings[0]
        run_stage(ranking, log, allow_gaps=profile.allow_gaps)
        own = run_task(score_method, ranking)
        scores.setdefault(ref.name, []).append(own)
    return scores


def _publish(
    folder: Path,
    refs: Sequence[BenchmarkRef],
    scores: Mapping[Variant, Scores],
    lines: Mapping[str, Scores],
) -> dict[str, Any]:
    embedded = any(is_embedded_world(ref.root) for ref in refs)
    names = list(dict.fromkeys(ref.name for ref in refs))
    panels = [panel_of(name, scores, lines, embedded) for name in names]
    title = "Quality against the number of triplets"
    benchmarks = counted(len(refs), "benchmark")
    about = f"InstructCIR trained on nested sets of generated triplets; {benchmarks}."
    place = Location(str(folder))
    place.replace("scaling.html", scaling_page(title, about, panels, embedded).encode())
    numbers = {panel.title: _numbers(panel) for panel in panels}
    place.replace("scaling.json", json.dumps(numbers, indent=1).encode())
    text = "\n\n".join(_markdown(panel) for panel in panels) + "\n"
    place.replace("scaling.md", text.encode())
    publish_markdown(artifact_key("scaling", *names), text, title)
    return {"page": str(folder / "scaling.html"), "numbers": numbers}


def panel_of(
    benchmark: str,
    scores: Mapping[Variant, Scores],
    lines: Mapping[str, Scores],
    embedded: bool,
) -> Panel:
    """Means over the scored worlds, intervals, and paired differences to the whole network."""
    main = benchmark_facts(benchmark).metrics.main
    curve = [v for v in scores if not v.change]
    comparisons = []
    for variant in scores:
        if variant.change:
            whole = _draws(scores[Variant(variant.triplets)][benchmark], main)
            apart = _draws(scores[variant][benchmark], main) - whole
            low, high = interval(apart)
            measured = _measured(variant, scores[variant][benchmark], main)
            whole_mean = _mean(scores[Variant(variant.triplets)][benchmark], main)
            comparisons.append(
                Comparison(variant.change, measured, measured.mean - whole_mean, low, high)
            )
    return Panel(
        title=f"{benchmark_facts(benchmark).title}{'-like, embedded world' if embedded else ''}",
        metric=main,
        curve=tuple(_measured(v, scores[v][benchmark], main) for v in curve),
        others=tuple((name, _mean(own[benchmark], main)) for name, own in lines.items()),
        comparisons=tuple(comparisons),
    )


def _measured(variant: Variant, scores: Sequence[MethodScores], main: str) -> Measured:
    low, high = interval(_draws(scores, main))
    return Measured(variant.triplets, _mean(scores, main), low, high)


def _mean(scores: Sequence[MethodScores], main: str) -> float:
    return mean([each.metrics[main] for each in scores])


def _draws(scores: Sequence[MethodScores], main: str) -> Draws:
    return mean_draws([each.draws[main] for each in scores])


def _numbers(panel: Panel) -> dict[str, Any]:
    return {
        "metric": panel.metric,
        "curve": [vars(m) for m in panel.curve],
        "others": dict(panel.others),
        "comparisons": [{**vars(c), "measured": vars(c.measured)} for c in panel.comparisons],
    }


def _markdown(panel: Panel) -> str:
    rows = [(f"{m.triplets:,}", m.mean, f"{m.low:.2f} to {m.high:.2f}", "") for m in panel.curve]
    rows += [
        (
            f"{c.measured.triplets:,}, {c.name}",
            c.measured.mean,
            f"{c.measured.low:.2f} to {c.measured.high:.2f}",
            f"{c.difference:+.2f} [{c.low:+.2f}, {c.high:+.2f}]",
        )
        for c in panel.comparisons
    ]
    rows += [(name, value, "", "") for name, value in panel.others]
    columns = ("triplets", panel.metric, "95 % interval", "against the whole network")
    return f"**{plain(panel.title)}**\n\n{markdown_table(columns, rows)}"
