"""Evaluate again on other backbones: the texts are reused, only CLIP's features are made.

Captions, edited captions and added objects do not depend on the backbone. A new one costs its
image and text features, a mapping network if a method needs one and none was named, and scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, runtime

from flows.forms import (
    PROFILE_CAPTIONING,
    PROFILE_WORK,
    Backbone,
    BenchmarkChoice,
    Captioning,
    Methods,
    Overrides,
    ProfileName,
    Work,
    with_choices,
)
from flows.profiles import resolve_profile
from flows.score_benchmark import Outcome, evaluate
from flows.train_mapping import train_mapping_for
from models.retrieval.methods import METHODS, needs
from storage.benchmarks.registry import benchmark_facts
from tasks.artifacts import artifact_key, publish_markdown, stages_markdown
from tasks.backbone_names import Folders, folders_of, recognised, recognised_name
from tasks.planner import runnable_methods
from tasks.query_sets import BenchmarkRef, is_embedded_world
from tasks.redacted import redacting
from tasks.report.markdown import Markdown, markdown_table, plain
from tasks.scoring.ledger import read_ledger
from tasks.scoring.published import published_for
from tasks.settings import Profile
from tasks.stages.rankings import backbone_of

LINCIR = "mapping:lincir"


@dataclass(frozen=True)
class MappingPlan:
    """How a mapping network is trained where a backbone has none.

    Attributes:
        captions: Text or Parquet file of captions, or the name of a captioned collection.
        steps: Optimiser steps.
    """

    captions: str
    steps: int


def _run_name() -> str:
    """Such as `ViT-B-32 openai on cirr val, circo val`."""
    given = runtime.flow_run.parameters
    backbones = given.get("backbones") or [given["backbone"]]
    names = [Backbone.model_validate(each).title for each in backbones]
    benchmarks = [BenchmarkChoice.model_validate(each) for each in given["benchmarks"]]
    return f"{', '.join(names)} on {', '.join(f'{b.name} {b.split}' for b in benchmarks)}"


@flow(
    name="rerun-backbone", flow_run_name=_run_name, persist_result=False, result_serializer="json"
)
@redacting
def rerun_backbone(
    backbone: Backbone,
    benchmarks: list[BenchmarkChoice],
    methods: Methods = (),
    captioning: Captioning = PROFILE_CAPTIONING,
    mapping_captions: str = "",
    mapping_steps: int = 20_000,
    work: Work = PROFILE_WORK,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    out: str = "out/rerun",
) -> dict[str, Any]:
    """Score methods on benchmarks with another CLIP backbone.

    Args:
        backbone: The CLIP to evaluate.
        benchmarks: The benchmarks to score on.
        mapping_captions: Captions that a mapping network for this backbone is trained on, if a
            method needs one: a text or Parquet file, or the name of a captioned collection.
        mapping_steps: Optimiser steps of that training.
        out: Folder for the report and the submission files.
    """
    plan = MappingPlan(mapping_captions, mapping_steps)
    chosen = with_choices(settings, captioning, work)
    made = rerun(backbone, benchmarks, methods, plan, profile, chosen, Path(out))
    _show([made], benchmarks)
    return made.outcome.as_json() | {
        "backbone": made.name,
        "not on this backbone": made.on_their_own(),
    }


@flow(
    name="evaluate-matrix", flow_run_name=_run_name, persist_result=False, result_serializer="json"
)
@redacting
def evaluate_matrix(
    backbones: list[Backbone],
    benchmarks: list[BenchmarkChoice],
    methods: Methods = (),
    captioning: Captioning = PROFILE_CAPTIONING,
    mapping_captions: str = "",
    mapping_steps: int = 20_000,
    work: Work = PROFILE_WORK,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    out: str = "out/matrix",
) -> dict[str, Any]:
    """Score every method on every benchmark with every backbone.

    Args:
        backbones: The CLIPs to evaluate, one after the other.
        benchmarks: The benchmarks to score on.
        mapping_captions: Captions that mapping networks are trained on, where a backbone needs
            one: a text or Parquet file, or the name of a captioned collection.
        mapping_steps: Optimiser steps of that training.
        out: Folder for the reports, one below it per backbone.
    """
    plan = MappingPlan(mapping_captions, mapping_steps)
    chosen = with_choices(settings, captioning, work)
    made = [
        rerun(
            backbone,
            benchmarks,
            methods,
            plan,
            profile,
            chosen,
            Path(out, artifact_key(backbone.name or profile, backbone.pretrained)),
        )
        for backbone in backbones
    ]
    _show(made, benchmarks)
    return {
        "reports": {rerun.name: str(rerun.outcome.report) for rerun in made},
        **_by_backbone(made),
    }


def _by_backbone(made: Sequence[Rerun]) -> dict[str, dict[str, Any]]:
    """Scores by backbone and method; a method that keeps to its own backbone stands once."""
    scores: dict[str, dict[str, Mapping[str, float]]] = {}
    mains: dict[str, str] = {}
    folders = folders_of(*(rerun.profile.query_encoder for rerun in made))
    for rerun in made:
        for place, item in enumerate(rerun.outcome.benchmarks):
            used = rerun.backbones(place, folders)
            for method, own in item.scores.items():
                title = f"{item.ref.collection_name} on {used[method]}"
                scores.setdefault(title, {})[method] = dict(own.metrics)
                mains[title] = benchmark_facts(item.ref.name).metrics.main
    return {"scores": scores, "main_metrics": mains}


@dataclass(frozen=True)
class Rerun:
    """An evaluation on one backbone.

    Attributes:
        name: Name of the backbone in tables.
        title: The backbone as it was given.
        profile: Settings of the run.
        refs: The benchmarks.
        outcome: Rankings, scores and files.
    """

    name: str
    title: str
    profile: Profile
    refs: tuple[BenchmarkRef, ...]
    outcome: Outcome

    def backbones(self, place: int, folders: Folders) -> dict[str, str]:
        """Method -> the backbone that it ran on, on the benchmark at a place.

        A reformulation network keeps to the one that it was trained on.
        """
        rankings = self.outcome.benchmarks[place].rankings
        return {stage.method: recognised(backbone_of(stage), folders) for stage in rankings}

    def on_their_own(self) -> str:
        """The methods that do not use the backbone, each with its own; empty if all use it."""
        folders = folders_of(self.profile.query_encoder)
        places = range(len(self.refs))
        every = {m: b for place in places for m, b in self.backbones(place, folders).items()}
        others = {m: b for m, b in every.items() if self.name not in b.split(" & ")}
        said = [f"{m}: {b}" for m, b in others.items() if not b.startswith(f"{self.name} ")]
        return "; ".join(said)


def rerun(
    backbone: Backbone,
    benchmarks: Sequence[BenchmarkChoice],
    methods: Sequence[str],
    mapping: MappingPlan,
    profile: str,
    settings: dict[str, Any],
    out: Path,
) -> Rerun:
    """Evaluate on one backbone; trains its mapping network first where one is needed.

    Raises:
        ValueError: a method needs a mapping network, and no captions to train it on are named.
    """
    chosen = resolve_profile(profile, with_choices(settings, backbone))
    refs = tuple(choice.ref(chosen) for choice in benchmarks)
    asked = list(methods) or runnable_methods(chosen)
    if backbone.name and not backbone.mapping and _needs_mapping(asked, refs):
        if not mapping.captions:
            raise ValueError(
                f"a mapping network for {backbone.name} is missing, which "
                f"{', '.join(_needing(asked, refs))} cannot do without: "
                "name one (backbone.mapping), or captions to train it on (mapping_captions: a "
                "text or Parquet file, or a captioned collection), or choose other methods"
            )
        trained = train_mapping_for(chosen, mapping.captions, mapping.steps)
        with_mapping = backbone.model_copy(update={"mapping": trained})
        chosen = resolve_profile(profile, with_choices(settings, with_mapping))
    name = recognised_name(chosen.query_encoder)
    outcome = evaluate(chosen, refs, asked, out, f"Evaluation on {name}")
    return Rerun(name, backbone.title, chosen, refs, outcome)


def _needing(methods: Sequence[str], refs: Sequence[BenchmarkRef]) -> list[str]:
    families = {ref.load().family for ref in refs}
    return [name for name in methods if any(LINCIR in needs(METHODS[name], f) for f in families)]


def _needs_mapping(methods: Sequence[str], refs: Sequence[BenchmarkRef]) -> bool:
    return bool(_needing(methods, refs))


# --------------------------------------------------------------------------- artifacts


def _show(made: Sequence[Rerun], benchmarks: Sequence[BenchmarkChoice]) -> None:
    """Publish the comparison of backbones, one artifact per benchmark."""
    stages = stages_markdown([s.as_json() for rerun in made for s in rerun.outcome.log.stages])
    reports = "\n".join(
        f"- {plain(rerun.name)} ({plain(rerun.title)}): [{plain(path.name)}]({path.as_uri()}), "
        f"{plain(path)}"
        for rerun in made
        for path in [rerun.outcome.report.resolve()]
    )
    folders = folders_of(*(rerun.profile.query_encoder for rerun in made))
    for place, choice in enumerate(benchmarks):
        items = {rerun.name: rerun.outcome.benchmarks[place] for rerun in made}
        if not all(item.scores for item in items.values()):
            continue  # hidden targets: there are submission files instead
        ref = made[0].refs[place]
        main = benchmark_facts(ref.name).metrics.main
        new: dict[str, dict[str, float]] = {}
        for rerun in made:
            used = rerun.backbones(place, folders)
            for method, scores in rerun.outcome.benchmarks[place].scores.items():
                new.setdefault(used[method], {})[method] = scores.metrics[main]
        publish_markdown(
            artifact_key("backbones", ref.collection_name),
            f"{comparison(made[0].profile.root, ref, new, folders)}\n\n### Full reports\n{reports}"
            f"\n\n### What was made\n{stages}",
            f"{choice.name} {choice.split}: methods by backbone",
        )


def comparison(
    root: str, ref: BenchmarkRef, new: Mapping[str, Mapping[str, float]], folders: Folders
) -> str:
    """Methods by backbone on one benchmark, next to the papers' numbers.

    Args:
        root: Root whose ledger holds scores on earlier backbones.
        ref: The benchmark.
        new: Backbone -> method -> main metric, of this run.
        folders: Folder names of its backbones.
    """
    main = benchmark_facts(ref.name).metrics.main
    entries = [
        entry
        for entry in read_ledger(root, folders)
        if (entry["benchmark"], entry["split"]) == (ref.name, ref.split)
        and main in entry["metrics"]
    ]
    values = {(e["method"], e["backbone"]): e["metrics"][main]["value"] for e in entries}
    values |= {(m, name): value for name, own in new.items() for m, value in own.items()}
    backbones = list(dict.fromkeys(name for _, name in values))
    methods = list(dict.fromkeys(name for name, _ in values))
    methods.sort(key=lambda name: -max(values.get((name, b), 0.0) for b in backbones))
    columns = [
        "method",
        *(Markdown(f"**{plain(b)}**") if b in new else b for b in backbones),
        "papers",
    ]
    rows = [
        (
            METHODS[name].title if name in METHODS else name,
            *(values.get((name, b), "") for b in backbones),
            _printed(ref, name, backbones),
        )
        for name in methods
    ]
    embedded = is_embedded_world(ref.root)
    note = " (embedded world: not comparable with papers)" if embedded else ""
    return f"## {plain(ref.collection_name)}: {main}{note}\n\n{markdown_table(columns, rows)}"


def _printed(ref: BenchmarkRef, method: str, backbones: Sequence[str]) -> str:
    """A method's published main metric for some backbones, each with its own backbone and split."""
    metric, drawn = benchmark_facts(ref.name).metrics.main, is_embedded_world(ref.root)
    found = [published_for(ref.name, ref.split, method, b, drawn=drawn) for b in backbones]
    shown = (f"{each.result.metrics[metric]:.2f} ({each.where})" for each in found if each)
    return ", ".join(dict.fromkeys(shown))
