"""Evaluate again on other backbones: the texts are reused, only CLIP's features are made.

Captions, edited captions and added objects do not depend on the backbone. A new one costs its
image and text features, a mapping network if a method needs one and none was named, and scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import flow
from prefect.states import State

from flows.forms import Backbone, BenchmarkChoice
from flows.requests import rerun_backbones as requests
from flows.requests.prepared import prepared_by
from flows.requests.rerun_backbones import RerunRequest
from flows.run_names import named
from flows.score_benchmark import Outcome, evaluate, methods_elsewhere
from flows.summaries import summed_up
from flows.train_mapping import train_mapping_for
from flows.train_reformulation import train_network_on
from models.retrieval.methods import title_of
from storage.benchmarks.registry import benchmark_facts
from tasks.artifact_keys import artifact_key
from tasks.artifacts import publish_markdown, stages_markdown
from tasks.backbone_names import Folders, folders_of, recognised, recognised_name
from tasks.query_sets import BenchmarkRef, is_embedded_world
from tasks.redacted import redacting
from tasks.report.markdown import Markdown, markdown_table, plain
from tasks.scoring.ledger import read_ledger
from tasks.scoring.published import published_for
from tasks.stages.rankings import backbone_of


@named
def _run_name(given: Mapping[str, Any]) -> str:
    """Such as `ViT-B-32 openai on cirr val, circo val`."""
    backbones = given.get("backbones") or [given["backbone"]]
    names = [Backbone.model_validate(each).title for each in backbones]
    benchmarks = [BenchmarkChoice.model_validate(each) for each in given["benchmarks"]]
    return f"{', '.join(names)} on {', '.join(f'{b.name} {b.split}' for b in benchmarks)}"


@flow(
    name="rerun-backbone",
    flow_run_name=_run_name,
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.rerun_backbone)
def rerun_backbone(asked: RerunRequest) -> State[Any]:
    """Evaluate on one backbone, and compare it with those in the ledger."""
    made = rerun(asked)
    _show([made])
    result = made.outcome.as_json() | {
        "backbone": made.name,
        "not on this backbone": made.on_their_own(),
        "left out": dict(asked.left_out),
    }
    return summed_up(result, _by_backbone([made]))


@flow(
    name="evaluate-matrix",
    flow_run_name=_run_name,
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.evaluate_matrix)
def evaluate_matrix(asked: tuple[RerunRequest, ...]) -> State[Any]:
    """Evaluate on one backbone and combination after the other, and compare them."""
    made = [rerun(each) for each in asked]
    _show(made)
    result = {
        "costs": {
            rerun.title: {
                item.ref.title: {name: cost.as_json() for name, cost in item.costs.items()}
                for item in rerun.outcome.benchmarks
            }
            for rerun in made
        },
        "reports": {rerun.title: str(rerun.outcome.report) for rerun in made},
        "left out": {
            rerun.title: dict(rerun.asked.left_out) for rerun in made if rerun.asked.left_out
        },
        **_by_backbone(made),
    }
    return summed_up(result)


def _by_backbone(made: Sequence[Rerun]) -> dict[str, dict[str, Any]]:
    """Scores by backbone and method; a method that keeps to its own backbone stands once."""
    scores: dict[str, dict[str, Mapping[str, float]]] = {}
    mains: dict[str, str] = {}
    folders = folders_of(*(rerun.asked.profile.query_encoder for rerun in made))
    for rerun in made:
        for place, item in enumerate(rerun.outcome.benchmarks):
            used = rerun.backbones(place, folders)
            for method, own in item.scores.items():
                title = _worded(f"{item.ref.title} on {used[method]}", rerun.asked.varied)
                scores.setdefault(title, {})[method] = dict(own.metrics)
                mains[title] = benchmark_facts(item.ref.name).metrics.main
    return {"scores": scores, "main_metrics": mains}


@dataclass(frozen=True)
class Rerun:
    """An evaluation on one backbone.

    Attributes:
        asked: The evaluation as it was asked for.
        name: Name of the backbone in tables.
        outcome: Rankings, scores and files.
    """

    asked: RerunRequest
    name: str
    outcome: Outcome

    @property
    def title(self) -> str:
        """Backbone, and what tells it from others on it."""
        return _worded(self.name, self.asked.varied)

    def backbones(self, place: int, folders: Folders) -> dict[str, str]:
        """Method -> the backbone that it ran on, on the benchmark at a place.

        A reformulation network keeps to the one that it was trained on.
        """
        rankings = self.outcome.benchmarks[place].rankings
        return {stage.method: recognised(backbone_of(stage), folders) for stage in rankings}

    def on_their_own(self) -> str:
        """The methods that do not use the backbone, each with its own; empty if all use it."""
        encoder, own = self.asked.profile.query_encoder, self.outcome.benchmarks
        every = (methods_elsewhere(item.rankings, encoder) for item in own)
        found = {method: backbone for each in every for method, backbone in each.items()}
        return "; ".join(f"{method}: {backbone}" for method, backbone in found.items())


def _worded(name: str, varied: str) -> str:
    return f"{name}, {varied}" if varied else name


def rerun(asked: RerunRequest) -> Rerun:
    """Evaluate on one backbone; networks that it needs are trained first."""
    if asked.mapping is not None:
        trained = train_mapping_for(asked.profile, asked.mapping.captions, asked.mapping.steps)
        asked = asked.with_mapping(trained)
    if asked.network is not None:
        own = asked.network
        asked = asked.with_network(train_network_on(asked.profile, own.triplets, own.groups))
    name = recognised_name(asked.profile.query_encoder)
    title = _worded(f"Evaluation on {name}", asked.varied)
    return Rerun(
        name=name,
        asked=asked,
        outcome=evaluate(asked.profile, asked.refs, asked.methods, asked.out, title),
    )


# --------------------------------------------------------------------------- artifacts


def _show(made: Sequence[Rerun]) -> None:
    """Publish the comparison of backbones, one artifact per benchmark."""
    stages = stages_markdown([s.as_json() for rerun in made for s in rerun.outcome.log.stages])
    reports = "\n".join(
        f"- {plain(rerun.title)} ({plain(rerun.asked.backbone.title)}): "
        f"[{plain(path.name)}]({path.as_uri()}), {plain(path)}"
        for rerun in made
        for path in [rerun.outcome.report.resolve()]
    )
    folders = folders_of(*(rerun.asked.profile.query_encoder for rerun in made))
    for place, choice in enumerate(made[0].asked.choices):
        items = {rerun.title: rerun.outcome.benchmarks[place] for rerun in made}
        if not all(item.scores for item in items.values()):
            continue  # hidden targets: there are submission files instead
        ref = made[0].outcome.benchmarks[place].ref
        main = benchmark_facts(ref.name).metrics.main
        new: dict[str, dict[str, float]] = {}
        for rerun in made:
            used = rerun.backbones(place, folders)
            for method, scores in rerun.outcome.benchmarks[place].scores.items():
                new.setdefault(used[method], {})[method] = scores.metrics[main]
        publish_markdown(
            artifact_key("backbones", ref.title),
            f"{comparison(made[0].asked.profile.root, ref, new, folders)}\n\n### Full reports\n"
            f"{reports}{_left_out(made)}\n\n### What was made\n{stages}",
            f"{choice.name} {choice.split}: methods by backbone",
        )


def _left_out(made: Sequence[Rerun]) -> str:
    """The methods that did not run, each with its reason."""
    rows = [(each.title, *pair) for each in made for pair in each.asked.left_out.items()]
    table = markdown_table(("backbone", "method", "reason"), rows)
    return f"\n\n### Left out\n{table}" if rows else ""


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
        and entry["protocol"].get("texts", {}).get("content", "") == ref.texts.content
        and main in entry["metrics"]
    ]
    values = {
        (e["method"], e["differs"], e["backbone"]): e["metrics"][main]["value"] for e in entries
    }
    known = {(method, name) for method, _, name in values}
    values |= {
        (m, "", name): value
        for name, own in new.items()
        for m, value in own.items()
        if (m, name) not in known
    }
    backbones = list(dict.fromkeys(name for _, _, name in values))
    rows_of = list(dict.fromkeys((name, differs) for name, differs, _ in values))
    rows_of.sort(key=lambda row: -max(values.get((*row, b), 0.0) for b in backbones))
    apart = any(differs for _, differs in rows_of)
    columns = [
        "method",
        *(["what differs"] if apart else []),
        *(Markdown(f"**{plain(b)}**") if b in new else b for b in backbones),
        "papers",
    ]
    rows = [
        (
            title_of(name),
            *([differs] if apart else []),
            *(values.get((name, differs, b), "") for b in backbones),
            _printed(ref, name, backbones),
        )
        for name, differs in rows_of
    ]
    embedded = is_embedded_world(ref.root)
    note = " (embedded world: not comparable with papers)" if embedded else ""
    return f"## {plain(ref.title)}: {main}{note}\n\n{markdown_table(columns, rows)}"


def _printed(ref: BenchmarkRef, method: str, backbones: Sequence[str]) -> str:
    """A method's published main metric for some backbones, each with its own backbone and split."""
    if ref.texts.are_replaced:
        return ""
    metric, drawn = benchmark_facts(ref.name).metrics.main, is_embedded_world(ref.root)
    found = [published_for(ref.name, ref.split, method, b, drawn=drawn) for b in backbones]
    shown = (f"{each.result.metrics[metric]:.2f} ({each.where})" for each in found if each)
    return ", ".join(dict.fromkeys(shown))
