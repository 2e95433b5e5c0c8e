"""The page that a person reads before training on generated triplets."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from models.instructcir.triplet_quality import QualityCounter, TripletQuality, attention
from models.spelling import agreed, counted
from models.triplets import TripletRow
from storage.locations.location import Location
from storage.tables.schemas import OK
from tasks.foreign_pictures import warning_on
from tasks.report import text
from tasks.report.markdown import plain
from tasks.report.pictures import evenly, thumbnail
from tasks.report.records import Provenance, Thumbnail
from tasks.report.render import render_page
from tasks.stages.stage_report import StageReport
from tasks.stages.triplets import TripletStage
from tasks.training.leak_guard import describe

SHOWN: Final = 24
"""Triplets shown as pictures."""
_COLUMNS: Final = tuple(field.name for field in dataclasses.fields(TripletRow))


def stage_rows(stage: TripletStage) -> Iterator[TripletRow]:
    """The outcome of each pair of the stage, part by part, in no order."""
    for part in stage.table().iter_parts(_COLUMNS, stage.planned()):
        for row in part.select(_COLUMNS).iter_rows():
            yield TripletRow(*row)


def stage_quality(stage: TripletStage) -> TripletQuality:
    """The measures of a stage's triplets."""
    counter = QualityCounter()
    for row in stage_rows(stage):
        counter.add(row)
    return counter.quality()


def notes_on(stage: TripletStage, quality: TripletQuality) -> list[str]:
    """Findings that deserve attention, in words."""
    pools = stage.pairs.pools(stage.root)
    guards = pools.exclusions
    blind = {each.guard: each.not_at_hand for each in guards if each.not_at_hand}
    notes = attention(quality, {s.collection: s.weight for s in stage.pairs.sources})
    engines = {"captioner": stage.captions.captioner, "rewriter": stage.generator}
    sources = [source.collection for source in stage.pairs.sources]
    notes += filter(None, [warning_on(stage.root, sources, engines)])
    if not stage.pairs.guard:
        notes.append(
            "No benchmark was guarded: its images may be among the pairs. Name those that you will "
            "score on, such as guard=cirr:test1:data/cirr."
        )
    if pools.without_feature:
        notes.append(
            f"{counted(pools.without_feature, 'image has', 'images have')} no feature to compare, "
            f"and {agreed(pools.without_feature, 'is', 'are')} in no pair."
        )
    notes += [
        f"{counted(count, 'image')} of {name} {agreed(count, 'was', 'were')} not available: the "
        f"leak guard compared {agreed(count, 'it', 'them')} by file name only."
        for name, count in sorted(blind.items())
    ]
    return notes


def build_triplet_report(
    stage: TripletStage, quality: TripletQuality, stages: Sequence[StageReport], out: Path
) -> Path:
    """Write `triplets.html` and `quality.json` below `out`; returns the page's path.

    Args:
        stage: The stage whose table is complete.
        quality: Its measures.
        stages: Reports of the stages that ran.
        out: A folder, made if it is not there.
    """
    notes = notes_on(stage, quality)
    html = render_page(
        "triplets.html.j2",
        title=counted(quality.ok, "triplet"),
        subtitle="Each has a reference image, a text and a target image: training data that "
        "InstructCIR makes from images alone. Look at it before training on it.",
        created=text.now(),
        quality=quality,
        notes=notes,
        lengths=[(counted(length, "word"), n) for length, n in quality.lengths.items()],
        attempts=[(f"{attempt}.", n) for attempt, n in quality.attempts.items()],
        sources=[(name, sum(counts.values())) for name, counts in quality.by_source.items()],
        origins=_origins(quality),
        alike=_alike(stage, quality),
        guards=[describe(each) for each in stage.pairs.pools(stage.root).exclusions],
        triplets=list(_shown(stage)),
        stages=stages,
        provenance=_provenance(stage),
    )
    facts = {
        "attention": notes,
        **dataclasses.asdict(quality),
        "similarity": dict(stage.pairs.similarities(stage.root)),
    }
    out.mkdir(parents=True, exist_ok=True)
    folder = Location(str(out))
    folder.replace("triplets.html", html.encode())
    folder.replace("quality.json", (json.dumps(facts, indent=2) + "\n").encode())
    return out / "triplets.html"


def markdown(quality: TripletQuality, notes: Sequence[str]) -> str:
    """The measures in a few lines, for Prefect's UI."""
    failed = [f"- {f.count:,} {plain(f.status)}: {plain(f.kind)}" for f in quality.failures]
    lines = [
        f"**{counted(quality.ok, 'triplet')}** of {counted(quality.rows, 'pair')}, "
        f"{counted(quality.images, 'image')}.",
        "",
        *(f"- {plain(note)}" for note in notes),
        "",
        f"{counted(quality.distinct_texts, 'different text')}, "
        f"{counted(quality.vocabulary, 'different word')}.",
        *(["", "Pairs without a text:", "", *failed] if failed else []),
    ]
    return "\n".join(lines)


def _origins(quality: TripletQuality) -> tuple[tuple[str, str], ...]:
    """Sources of the words of the texts, with their shares."""
    neither = 1.0 - quality.from_target - quality.from_reference - quality.from_both
    ok = max(quality.ok, 1)
    return (
        ("in caption B only: added in the target", f"{quality.from_target:.1%}"),
        ("in caption A only: missing in the target", f"{quality.from_reference:.1%}"),
        ("in both captions", f"{quality.from_both:.1%}"),
        ("in neither: the language of change", f"{neither if quality.ok else 0.0:.1%}"),
        (
            "texts with at least 90 % of their words from caption B",
            f"{quality.near_copies / ok:.1%}",
        ),
        ("texts that are a piece of caption B, word for word", f"{quality.copies / ok:.1%}"),
    )


def _alike(stage: TripletStage, quality: TripletQuality) -> list[tuple[str, str]]:
    """How alike the images of a pair are: by their captions, and by their features where known."""
    rows = [("words that both captions have, mean", f"{quality.captions_alike:.1%}")]
    if band := stage.pairs.similarity:
        rows.append(("band of each class's pairs, by similarity", f"{band.low:g} to {band.high:g}"))
    return rows + [
        (f"cosine of image features, {name} of the pairs below", f"{value:.3f}")
        for name, value in stage.pairs.similarities(stage.root).items()
    ]


def _shown(stage: TripletStage) -> Iterator[tuple[TripletRow, Thumbnail, Thumbnail]]:
    """Some triplets with reference and target, evenly drawn from the whole sample."""
    table = stage.table()
    rows = table.read(["position", "status"], stage.planned())
    good = rows.filter(pl.col("status") == OK).sort("position")[table.schema.key]
    chosen = table.read(_COLUMNS, evenly(good.to_list(), SHOWN)).sort("position")
    shown = [TripletRow(*row) for row in chosen.select(_COLUMNS).iter_rows()]
    ids = sorted({image for row in shown for image in (row.reference, row.target)})
    pictures = {
        image_id: thumbnail(data, f"image {image_id[:12]}")
        for image_id, data in (stage.pairs.read(stage.root, ids) if ids else ())
    }
    for row in shown:
        yield row, pictures[row.reference], pictures[row.target]


def _provenance(stage: TripletStage) -> Provenance:
    tables = (stage.captions.table(), stage.table())
    packages = ("torch", "transformers", "prefect", "polars", "pyarrow")
    return Provenance(
        versions={name: importlib.metadata.version(name) for name in packages},
        specs={f"{table.name}/{table.spec_key}": dict(table.spec) for table in tables},
    )
