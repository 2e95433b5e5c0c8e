"""The page that a person reads before training on generated triplets."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from models.instructcir.triplet_quality import QualityCounter, TripletQuality, attention
from models.instructcir.triplets import TripletRow
from storage.locations.location import Location
from storage.tables.schemas import OK
from tasks.report import plots
from tasks.report.page import StageView, run_totals, stage_view
from tasks.report.pictures import thumbnail
from tasks.report.records import Provenance, Stage, Thumbnail
from tasks.report.render import render_page
from tasks.stages.triplets import TripletStage
from tasks.training.leak_guard import describe

SHOWN: Final = 24
"""Triplets shown as pictures."""
_COLUMNS: Final = tuple(field.name for field in dataclasses.fields(TripletRow))


def stage_rows(stage: TripletStage) -> Iterator[TripletRow]:
    """What became of the stage's pairs, part by part, in no order."""
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
    """What deserves attention, in words."""
    guards = stage.pairs.pools(stage.root).exclusions
    blind = {each.guard: each.not_at_hand for each in guards if each.not_at_hand}
    notes = attention(quality, {s.collection: s.weight for s in stage.pairs.sources})
    if not stage.pairs.guard:
        notes.append(
            "No benchmark was guarded: its images may be among the pairs. Name those that you will "
            "score on, such as guard=cirr:test1:data/cirr."
        )
    notes += [
        f"{count:,} images of {name} were not at hand: the leak guard compared them by file name "
        "only."
        for name, count in sorted(blind.items())
    ]
    return notes


@dataclass(frozen=True)
class Counted:
    """A line of a bar chart."""

    label: str
    count: int
    share: str
    bar: plots.Bar


@dataclass(frozen=True)
class TripletView:
    """A triplet to look at."""

    row: TripletRow
    reference: Thumbnail
    target: Thumbnail


@dataclass(frozen=True)
class TripletPage:
    """Everything that the page shows, in its order."""

    quality: TripletQuality
    notes: tuple[str, ...]
    statuses: tuple[Counted, ...]
    lengths: tuple[Counted, ...]
    attempts: tuple[Counted, ...]
    openings: tuple[Counted, ...]
    words: tuple[Counted, ...]
    texts: tuple[Counted, ...]
    origins: tuple[tuple[str, str], ...]
    sources: tuple[Counted, ...]
    classes: tuple[Counted, ...]
    guards: tuple[str, ...]
    triplets: tuple[TripletView, ...]
    stages: tuple[StageView, ...]
    totals: dict[str, int]
    provenance: Provenance


def build_triplet_report(
    stage: TripletStage, quality: TripletQuality, stages: Sequence[Any], out: Path
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
        title=f"{quality.ok:,} triplets",
        subtitle="A reference image, a text and a target image each: training data that "
        "InstructCIR makes out of images alone. Look at it before training on it.",
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        page=_page(stage, quality, notes, stages),
    )
    facts = {"attention": notes, **dataclasses.asdict(quality)}
    out.mkdir(parents=True, exist_ok=True)
    folder = Location(str(out))
    folder.replace("triplets.html", html.encode())
    folder.replace("quality.json", (json.dumps(facts, indent=2) + "\n").encode())
    return out / "triplets.html"


def markdown(quality: TripletQuality, notes: Sequence[str]) -> str:
    """The measures in a few lines, for Prefect's UI."""
    failed = [f"- {f.count:,} {f.status}: {f.kind}" for f in quality.failures]
    lines = [
        f"**{quality.ok:,} triplets** of {quality.rows:,} pairs, {quality.images:,} images.",
        "",
        *(f"- {note}" for note in notes),
        "",
        f"{quality.distinct_texts:,} different texts, {quality.vocabulary:,} different words.",
        *(["", "Pairs without a text:", "", *failed] if failed else []),
    ]
    return "\n".join(lines)


def _page(
    stage: TripletStage, quality: TripletQuality, notes: Sequence[str], stages: Sequence[Any]
) -> TripletPage:
    ran = [Stage(s.title, s.made, s.reused, s.failed, s.seconds, s.where) for s in stages]
    by_source = {name: sum(counts.values()) for name, counts in quality.by_source.items()}
    return TripletPage(
        quality=quality,
        notes=tuple(notes),
        statuses=_counted(quality.by_status.items(), quality.rows),
        lengths=_counted(((_words(n), c) for n, c in quality.lengths.items()), quality.ok),
        attempts=_counted(((f"{n}.", c) for n, c in quality.attempts.items()), quality.ok),
        openings=_counted(quality.openings, quality.ok),
        words=_counted(quality.frequent_words, 0),
        texts=_counted(quality.frequent_texts, quality.ok),
        origins=_origins(quality),
        sources=_counted(by_source.items(), quality.rows),
        classes=_counted(quality.by_class.items(), quality.rows),
        guards=tuple(describe(each) for each in stage.pairs.pools(stage.root).exclusions),
        triplets=tuple(_shown(stage)),
        stages=tuple(stage_view(each) for each in ran),
        totals=run_totals(ran),
        provenance=_provenance(stage),
    )


def _counted(items: Iterable[tuple[str, int]], whole: int) -> tuple[Counted, ...]:
    """Bars against the longest; shares of `whole` where there is one."""
    counts = list(items)
    scale = plots.Scale(0.0, float(max((count for _, count in counts), default=0) or 1))
    return tuple(
        Counted(label, count, f"{count / whole:.1%}" if whole else "", plots.bar(scale, count))
        for label, count in counts
    )


def _words(count: int) -> str:
    return f"{count} word" if count == 1 else f"{count} words"


def _origins(quality: TripletQuality) -> tuple[tuple[str, str], ...]:
    """Where the words of the texts come from."""
    neither = 1.0 - quality.from_target - quality.from_reference - quality.from_both
    ok = max(quality.ok, 1)
    return (
        ("in caption B only: what the target brings", f"{quality.from_target:.1%}"),
        ("in caption A only: what goes", f"{quality.from_reference:.1%}"),
        ("in both captions", f"{quality.from_both:.1%}"),
        ("in neither: the language of change", f"{neither if quality.ok else 0.0:.1%}"),
        (
            "texts with at least 90 % of their words from caption B",
            f"{quality.near_copies / ok:.1%}",
        ),
        ("texts that are a piece of caption B, word for word", f"{quality.copies / ok:.1%}"),
    )


def _shown(stage: TripletStage) -> Iterator[TripletView]:
    """Some triplets with their pictures, evenly drawn from the whole sample."""
    table = stage.table()
    rows = table.read(["position", "status"], stage.planned())
    good = rows.filter(pl.col("status") == OK).sort("position")[table.schema.key]
    places = np.linspace(0, len(good) - 1, min(SHOWN, len(good))).round().astype(int)
    chosen = table.read(_COLUMNS, [good[int(place)] for place in places]).sort("position")
    shown = [TripletRow(*row) for row in chosen.select(_COLUMNS).iter_rows()]
    ids = sorted({image for row in shown for image in (row.reference, row.target)})
    pictures = {
        image_id: thumbnail(data, f"image {image_id[:12]}")
        for image_id, data in (stage.pairs.read(stage.root, ids) if ids else ())
    }
    for row in shown:
        yield TripletView(row, pictures[row.reference], pictures[row.target])


def _provenance(stage: TripletStage) -> Provenance:
    tables = (stage.captions.table(), stage.table())
    packages = ("torch", "transformers", "prefect", "polars", "pyarrow")
    return Provenance(
        versions={name: importlib.metadata.version(name) for name in packages},
        specs={f"{table.name}/{table.spec_key}": dict(table.spec) for table in tables},
    )
