"""Scaling: train on nested sets of triplets and plot quality against their number.

As in InstructCIR's Table IV and Figure 1, and with parts left out as in its Table V: the smaller
sets are the beginnings of the larger ones, everything else stays the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect import flow

from flows.evaluate_world import drawn_benchmarks
from flows.form_fields import Values
from flows.forms import BenchmarkChoice, MethodName, Overrides, ProfileName
from flows.ingest_collection import run_ingest
from flows.profiles import resolve_profile
from flows.running import RunLog, run_stage, run_stages, train_once
from flows.train_reformulation import reformulation_job
from models.retrieval.bootstrap import Draws, interval, mean, mean_draws
from models.retrieval.methods import method as known_method
from models.spelling import unknown
from storage.benchmarks.registry import benchmark_facts
from storage.locations.location import Location
from tasks.artifacts import artifact_key, publish_markdown
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder, is_embedded_world
from tasks.redacted import redacting
from tasks.report.markdown import markdown_table, plain
from tasks.report.scaling import Comparison, Measured, Panel, scaling_page
from tasks.scoring.run import score_method
from tasks.scoring.scores import MethodScores
from tasks.settings import Profile
from tasks.training.instructcir import train_reformulation_network
from tasks.training.job import RunSettings
from tasks.training.triplet_sets import TripletSet, parse_triplet_set
from tasks.unrecorded import run_task

LeftOut = Literal[
    "cross-attention", "ema", "predictor", "text tower training", "all but the original CLIP"
]

WITHOUT: Mapping[LeftOut, dict[str, Values]] = {
    "cross-attention": {"network": {"cross_attended_blocks": 0}},
    "ema": {"ema": {"enabled": False}},
    "predictor": {"network": {"predictor": False}},
    "text tower training": {"network": {"text_tower": "frozen"}},
    "all but the original CLIP": {
        "network": {"cross_attended_blocks": 0, "predictor": False},
        "ema": {"enabled": False},
    },
}
"""The settings that an ablation changes. Table V has the one without EMA, and the original CLIP:
both towers trained just as long, and the sum of their embeddings as the query."""

GROUPS = ("training", "loss", "network", "ema", "combiner", "run")

Scores = dict[str, list[MethodScores]]
"""Benchmark -> the scores of one network, world by world."""


@dataclass(frozen=True)
class Variant:
    """One network to train.

    Attributes:
        triplets: pairs of the sample that it sees.
        without: the part that is left out; empty for the whole network.
    """

    triplets: int
    without: LeftOut | Literal[""] = ""

    @property
    def name(self) -> str:
        """Its name in tables."""
        return f"{self.triplets:,}" + (f" without {self.without}" if self.without else "")


@flow(
    name="scaling", flow_run_name="scaling {sizes}", persist_result=False, result_serializer="json"
)
@redacting
def scaling(
    triplets: str | Values,
    sizes: list[int],
    without: list[LeftOut] | None = None,
    benchmarks: list[BenchmarkChoice] | None = None,
    seeds: list[int] | None = None,
    others: tuple[MethodName, ...] = (),
    method: Literal["instructcir", "instructcir-no-combiner", "instructcir-ema"] = "instructcir",
    training: Values | None = None,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    subsets: int = 250,
    circo_queries: int = 300,
    fashion_queries: int = 100,
    out: str = "out/scaling",
) -> dict[str, Any]:
    """Train InstructCIR on sets of several sizes, score each network, and plot the curve.

    Published networks are reused, so that a larger size can be added later.

    Args:
        triplets: The file triplets.json that generate-triplets wrote, or its content.
        sizes: Numbers of pairs; each set is the beginning of the next larger one.
        without: Also train the largest set without these parts.
        benchmarks: Benchmarks to score on; none: drawn worlds of the seeds.
        seeds: Seeds of drawn worlds to score on; none: the benchmarks alone.
        others: Other methods to draw as lines, e.g. image-text-sum, lincir, cvsi.
        method: The method of InstructCIR that is scored.
        training: Groups of train-reformulation's settings that all networks share, e.g.
            {"training": {"epochs": 6}, "loss": {"temperature": 0.03}}; also network, ema,
            combiner and run.
        subsets: CIRR-like groups of six in each drawn world; each gives two queries.
        circo_queries: CIRCO-like queries in each drawn world.
        fashion_queries: FashionIQ-like queries per category in each drawn world.
        out: Folder for drawn worlds, the page and the numbers.
    """
    chosen = resolve_profile(profile, settings)
    folder = Path(out).resolve()
    refs = [choice.ref(chosen) for choice in benchmarks or []]
    for seed in seeds or []:
        refs += drawn_benchmarks(folder, seed, subsets, circo_queries, fashion_queries)
    if not refs or not sizes:
        raise ValueError("give at least one size, and benchmarks or seeds of drawn worlds")
    found = parse_triplet_set(triplets)
    variants = [Variant(n) for n in sorted(set(sizes))]
    variants += [Variant(max(sizes), part) for part in without or []]
    _check(found, variants, training or {}, others)
    log = RunLog()
    scores = {v: _scored(chosen, found, v, training or {}, method, refs, log) for v in variants}
    lines = {name: _score(chosen, refs, name, log) for name in others}
    return _publish(folder, refs, scores, lines)


def _check(
    triplets: TripletSet, variants: Sequence[Variant], training: Values, others: Sequence[str]
) -> None:
    """Refuse impossible parts before hours are spent on the others."""
    for name in training:
        if name not in GROUPS:
            raise ValueError(unknown("group of training", name, GROUPS))
    for variant in variants:
        triplets.first(variant.triplets)
    for name in others:
        known_method(name)


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
    checkpoint = _trained(profile, triplets.first(variant.triplets), groups, variant.name)
    own = profile.instructcir.model_copy(update={"checkpoint": checkpoint})
    return _score(profile.model_copy(update={"instructcir": own}), refs, method, log)


def _trained(profile: Profile, triplets: TripletSet, groups: Values, name: str) -> str:
    """Folder of a network, trained unless it is published."""
    run = RunSettings.given(groups.get("run"), "run")
    own = {group: values for group, values in groups.items() if group != "run"}
    job = reformulation_job(profile.root, triplets, profile.encoder, **own)
    job.training.share(run.devices)  # refused before anything is decoded
    result = train_once(
        f"train on {name}", train_reformulation_network, job, sum(job.amounts()), run, {}
    )
    return str(result["checkpoint"])


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
    about = f"InstructCIR trained on nested sets of generated triplets; {len(refs)} benchmarks."
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
    curve = [v for v in scores if not v.without]
    comparisons = []
    for variant in scores:
        if variant.without:
            whole = _draws(scores[Variant(variant.triplets)][benchmark], main)
            apart = _draws(scores[variant][benchmark], main) - whole
            low, high = interval(apart)
            measured = _measured(variant, scores[variant][benchmark], main)
            whole_mean = _mean(scores[Variant(variant.triplets)][benchmark], main)
            comparisons.append(
                Comparison(
                    f"without {variant.without}", measured, measured.mean - whole_mean, low, high
                )
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
