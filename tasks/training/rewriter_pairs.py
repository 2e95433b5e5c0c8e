"""Prompts with answers that a rewriter is tuned on: from a file, a teacher, or a benchmark.

A prompt is rendered exactly as it will be when modification texts are written, and an answer must
keep the same contract (`models.instructcir.modification_texts`). What does not is left
out and counted, never mended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from models.instructcir.modification_texts import (
    CaptionPair,
    WritingSettings,
    read_answer,
    to_request,
)
from models.instructcir.rewriter_settings import Example
from models.prompts.library import Prompt
from models.protocols import TextReply
from tasks.query_sets import BenchmarkRef, load_query_set
from tasks.stages.caption_features import captions_of
from tasks.stages.captions import CaptionStage
from tasks.training.triplet_sets import TripletSet

CAPTIONED = ("caption_a", "caption_b", "text")
PROMPTED = ("prompt", "answer")
BENCHMARK = "benchmark"


@dataclass(frozen=True)
class ExampleSource:
    """The usable pairs of one source.

    Attributes:
        name: of the source, for the adapter's card.
        pairs: in the order of the source.
        left_out: kind of fault -> rows that are not among the pairs because of it.
        benchmarks: benchmarks whose annotators wrote some of the answers.
    """

    name: str
    pairs: tuple[Example, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()


def read_pairs(source: str, prompt: Prompt, name: str = "file") -> ExampleSource:
    """Pairs from a JSON-lines or Parquet file.

    Its columns are `caption_a`, `caption_b` and `text`, to be put into the prompt, or `prompt` and
    `answer`, taken as they are (a rehearsal of other tasks). A further column `benchmark` names
    the benchmark that a row's text was taken from; it is empty for texts of other origin.

    Raises:
        ValueError: the file cannot be read, or has neither set of columns.
    """
    rows = _read_rows(Path(source))
    columns = set(rows.columns)
    seen = rows[BENCHMARK].drop_nulls().unique().to_list() if BENCHMARK in columns else []
    benchmarks = tuple(sorted(str(value) for value in seen if value))
    if columns.issuperset(CAPTIONED):
        found = captioned_pairs(name, rows.select(CAPTIONED).iter_rows(), prompt)
        return replace(found, benchmarks=benchmarks)
    if not columns.issuperset(PROMPTED):
        raise ValueError(
            f"{source} needs the columns {', '.join(CAPTIONED)} or {', '.join(PROMPTED)}; "
            f"it has {', '.join(rows.columns) or 'none'}"
        )
    whole = rows.select(PROMPTED).drop_nulls()
    empty = len(rows) - len(whole)
    pairs = tuple(Example(str(asked), str(answer)) for asked, answer in whole.iter_rows())
    return ExampleSource(name, pairs, {"no text": empty} if empty else {}, benchmarks)


def captioned_pairs(
    name: str, rows: Iterable[tuple[str | None, str | None, str | None]], prompt: Prompt
) -> ExampleSource:
    """Pairs of (caption A, caption B, text) rows whose texts keep the contract."""
    pairs, left_out = [], Counter[str]()
    for before, after, text in rows:
        if not before or not after or not text:
            left_out["no text"] += 1
            continue
        answer, reason = read_answer(TextReply("", text))
        if reason:
            left_out[reason.partition(":")[0]] += 1
            continue
        request = to_request(CaptionPair("", before, after), prompt, WritingSettings(), 1)
        pairs.append(Example(request.prompt, answer))
    return ExampleSource(name, tuple(pairs), dict(left_out))


def triplet_pairs(triplets: TripletSet, prompt: Prompt, name: str = "triplets") -> ExampleSource:
    """Pairs of a generated set of triplets, whoever wrote its texts.

    If its writer had seen texts of benchmarks, so has who learns from it.
    """
    rows = ((t.reference_caption, t.target_caption, t.text) for t in triplets.triplets())
    writer = triplets.table().spec["generator"]
    found = captioned_pairs(name, rows, prompt)
    return replace(found, benchmarks=tuple(writer.get("saw_benchmark_texts", ())))


def benchmark_pairs(ref: BenchmarkRef, captions: CaptionStage, prompt: Prompt) -> ExampleSource:
    """Pairs of a benchmark's annotated texts ("33B-GT" in the paper): no longer zero-shot.

    Each annotator's text is an answer of its own, before a protocol joins several into one.

    Args:
        ref: which split; its images are in their collection.
        captions: captions of those images.
        prompt: of the modification text.
    """
    rows = _annotated_rows(ref, captions)
    found = captioned_pairs(f"{ref.name} {ref.split}", rows, prompt)
    return replace(found, benchmarks=(ref.name,))


def _annotated_rows(
    ref: BenchmarkRef, captions: CaptionStage
) -> Iterator[tuple[str | None, str | None, str]]:
    query_set = load_query_set(captions.root, ref)
    said = captions_of(captions, query_set.all_ids())

    def caption(image: str) -> str | None:
        return next(iter(said.get(query_set.image_ids.get(image, ""), ())), None)

    for query in query_set.benchmark.queries:
        for target in query.targets[:1]:
            for text in query.captions or (query.text,):
                yield caption(query.reference), caption(target), text


def _read_rows(path: Path) -> Any:
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_ndjson(path, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{path} cannot be read as Parquet or JSON lines: {error}") from error
