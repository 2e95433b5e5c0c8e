"""Reads the pairs that a rewriter is tuned on: from a file, a teacher, or a benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from models.instructcir.rewriter_examples import ExampleSource, captioned_pairs
from models.instructcir.rewriter_settings import Example
from models.prompts.library import Prompt
from tasks.query_sets import BenchmarkRef, load_query_set
from tasks.stages.caption_features import captions_of
from tasks.stages.captions import CaptionStage
from tasks.training.caption_files import utf8_text
from tasks.training.triplet_sets import TripletSet

CAPTIONED = ("caption_a", "caption_b", "text")
PROMPTED = ("prompt", "answer")
BENCHMARK = "benchmark"


def is_table(source: str) -> bool:
    """Whether a file's name is that of a table of pairs, and not of a reference to triplets."""
    return source.endswith((".jsonl", ".ndjson", ".parquet"))


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


def triplet_pairs(triplets: TripletSet, prompt: Prompt, name: str = "triplets") -> ExampleSource:
    """Pairs of a generated set of triplets.

    A writer that had seen texts of benchmarks passes this label on to its pupil.
    """
    rows = (  # imported triplets lack captions
        (t.reference_caption or None, t.target_caption or None, t.text) for t in triplets.triplets()
    )
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
        data = utf8_text(path).encode()
        return pl.read_ndjson(data, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{path} cannot be read as Parquet or JSON lines: {error}") from error
