"""Weights for each query: a gate trained on generated triplets, published as a small folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from models.retrieval.gate_files import GATE_FILE, gate_file
from models.retrieval.gate_settings import GateTraining
from models.spelling import agreed, counted
from tasks.galleries import open_gallery
from tasks.query_sets import QueryItem
from tasks.stages.query_features import QueryFeatureStage
from tasks.stages.rankings import AnyQueryFeature
from tasks.training.publish import Job, publish, publishing_once
from tasks.training.spent import FILE, cost_file
from tasks.training.triplet_sets import TripletSet, planned_split
from tasks.training.weighed_family import WeighedFamily

if TYPE_CHECKING:
    from models.retrieval.query_weights_training import Examples, Trained
    from models.triplets import Triplet

PRODUCER = "cirflow/query-weights/1"


@dataclass(frozen=True)
class GateJob(Job):
    """Gates of one method.

    Attributes:
        method: Whose parts are weighed.
        triplets: What is learned from.
        families: Family -> what its gate is trained on.
        training: How.
        content: `TripletSplit.content`.
        not_zero_shot: Why results must be labelled; empty where they need no label.
    """

    KIND: ClassVar[str] = "query_weights"
    LAST: ClassVar[str] = GATE_FILE

    method: str
    triplets: TripletSet
    families: Mapping[str, WeighedFamily]
    training: GateTraining
    content: str
    not_zero_shot: str = ""

    @property
    def spec(self) -> dict[str, Any]:
        """The identity of the gates."""
        return {
            "producer": PRODUCER,
            "method": self.method,
            "families": {name: own.identity for name, own in self.families.items()},
            "triplets": self.content,
            "training": self.training.model_dump(mode="json"),
        }


@publishing_once("train weights for each query")
def train_gates(job: GateJob, allow_gaps: float) -> dict[str, Any]:
    """Train a gate for each family and publish them; a published folder is left alone."""
    if not job.is_published:
        started = time.monotonic()
        split = planned_split(job.triplets, job.training.validation, job.content)
        trained = {
            name: _train(family, split.training, split.validation, job.training, allow_gaps)
            for name, family in job.families.items()
        }
        provenance = {
            "spec": job.spec,
            "triplets_spec": dict(job.triplets.table().spec),
            "zero_shot": not job.not_zero_shot,
            "zero_shot_reason": job.not_zero_shot,
            "training_triplets": len(split.training),
            "validation_triplets": len(split.validation),
            "penalties": {name: own.penalty for name, own in trained.items()},
            "measures": {name: dict(own.measures) for name, own in trained.items()},
        }
        gates = {name: own.gate for name, own in trained.items()}
        files = {
            GATE_FILE: gate_file(job.method, gates, provenance),
            "README.md": _card(job, provenance, trained).encode(),
            FILE: cost_file(time.monotonic() - started),
        }
        publish(job, files)
    return {"checkpoint": job.place, "setting": f"query_weights.{job.method}={job.place}"}


def _train(
    family: WeighedFamily,
    training: tuple[Triplet, ...],
    validation: tuple[Triplet, ...],
    settings: GateTraining,
    allow_gaps: float,
) -> Trained:
    from models.retrieval.gate import part_names
    from models.retrieval.query_weights_training import joined_examples, train_gate

    def joined(triplets: tuple[Triplet, ...]) -> Examples:
        groups = [
            made
            for collection in sorted(family.queries)
            if (made := _examples(family, collection, triplets, allow_gaps)) is not None
        ]
        if not groups:
            raise ValueError(
                "no held-out triplet, or none to train on, has every feature; generate more"
            )
        return joined_examples(groups)

    parts = part_names(family.recipe)
    return train_gate(parts, joined(training), joined(validation), settings)


def _examples(
    family: WeighedFamily, collection: str, triplets: tuple[Triplet, ...], allow_gaps: float
) -> Examples | None:
    """Examples of one collection; None where it has none whose features are all there."""
    from models.retrieval.query_weights import images_of, parts_of
    from models.retrieval.query_weights_training import examples_of

    opened = open_gallery(family.galleries[collection], family.recipe.gallery, allow_gaps)
    stages, places = family.queries[collection], opened.place
    usable = set.intersection(*(_usable(stage) for stage in stages.values()))
    asked = [
        (QueryItem.of(each.reference, (each.text,)).key, places(each.reference), target)
        for each in triplets
        if each.source == collection and (target := places(each.target)) >= 0
    ]
    asked = [each for each in asked if each[0] in usable]
    if not asked:
        return None
    keys, references, targets = zip(*asked, strict=True)
    vectors = {name: _vectors(stages[name], keys) for name in family.recipe.query}
    return examples_of(
        parts_of(family.recipe, vectors),
        images_of(family.recipe, opened.features),
        references,
        targets,
        keep_reference=not family.excludes_reference,
    )


def _usable(stage: AnyQueryFeature) -> set[str]:
    from storage.tables.schemas import OK

    table = stage.existing_table()
    rows = table.read(["status"], stage.planned())
    return {
        key for key, status in rows.select([table.schema.key, "status"]).iter_rows() if status == OK
    }


def _vectors(stage: AnyQueryFeature, keys: tuple[str, ...]) -> Any:
    vectors = stage.table().vectors(keys)
    return stage.shaped(vectors) if isinstance(stage, QueryFeatureStage) else vectors


def planned_content(triplets: TripletSet, training: GateTraining) -> str:
    """Key of the triplets as they are now."""
    return planned_split(triplets, training.validation, "").content


def _card(job: GateJob, provenance: Mapping[str, Any], trained: Mapping[str, Trained]) -> str:
    training, held_out = provenance["training_triplets"], provenance["validation_triplets"]
    lines = [
        f"# Weights for each query of {job.method} {job.key}",
        "",
        f"A linear gate on signals of a query's own search says how much each part of {job.method}"
        f" weighs; no label is read. Name the folder as `query_weights.{job.method}`.",
        "",
        f"Trained on {counted(training, 'generated triplet')} of "
        f"{', '.join(job.triplets.collections)}, measured on {held_out:,} that "
        f"{agreed(held_out, 'shares', 'share')} no image with {agreed(training, 'it', 'them')}, "
        "each ranked among the images that any part finds.",
        "`fixed`: the best weights for all queries alike. `shuffled`: the gate's weights of other"
        " queries. `oracle`: the best weights of a grid for each query, chosen by its target.",
        "",
        *([f"**Not zero-shot**: {job.not_zero_shot}.", ""] if job.not_zero_shot else []),
        "| family | weights | recall@1 | recall@10 | mean reciprocal rank |",
        "|---|---|---|---|---|",
    ]
    for family, own in trained.items():
        for name, values in own.measures.items():
            numbers = " | ".join(f"{value:.2f}" for value in values.values())
            lines.append(f"| {family} | {name} | {numbers} |")
    lines += ["", "## Fixed weights", ""]
    for family, own in trained.items():
        pairs = zip(own.gate.parts, own.gate.fixed, strict=True)
        said = ", ".join(f"{part} {weight:.2f}" for part, weight in pairs)
        lines.append(f"- {family}: {said}; ridge penalty {own.penalty:g}")
    lines += ["", f"Settings: `{job.training.model_dump_json()}`.", ""]
    return "\n".join(lines)
