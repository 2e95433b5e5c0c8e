"""The evaluation servers' submission files, validated as a whole before a byte is written.

A CIRR submission is two files, a CIRCO submission one. Rankings come in as gallery indices;
what was built is read back by the same checks that guard predictions files.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.benchmarks.errors import PredictionError, SubmissionError
from storage.benchmarks.indexing import index_category
from storage.benchmarks.parsing import listing
from storage.benchmarks.predictions import (
    CIRR_METRICS,
    CIRR_VERSION,
    RANKING_DEPTH,
    SUBSET_DEPTH,
    check_predictions,
)
from storage.benchmarks.records import Benchmark

MAX_CIRR_BYTES = 5_000_000  # the server's limit is 5 MB; the smaller reading is always safe
Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class SubmissionFile:
    """One validated file, ready to be written anywhere."""

    name: str
    payload: bytes


def cirr_submission(
    benchmark: Benchmark, rankings: Ints, subset_rankings: Ints
) -> tuple[SubmissionFile, SubmissionFile]:
    """The two CIRR files: the gallery ranking and the ranking inside each group.

    Args:
        benchmark: A CIRR-style split with its gallery.
        rankings: (Q, >= 50) gallery indices, best first, the reference excluded.
        subset_rankings: (Q, >= 3) gallery indices of members, best first.

    Raises:
        SubmissionError: when the server would reject or misread a file.
    """
    _require_style(benchmark, "cirr")
    lists = {"recall": (rankings, RANKING_DEPTH), "recall_subset": (subset_rankings, SUBSET_DEPTH)}
    made = []
    for metric in CIRR_METRICS:
        names = _named_lists(benchmark, *lists[metric])
        content = {"version": CIRR_VERSION, "metric": metric, **names}
        made.append(
            _validated(benchmark, f"{benchmark.name}_{benchmark.split}_{metric}.json", content)
        )
    for file in made:
        if len(file.payload) >= MAX_CIRR_BYTES:
            raise SubmissionError(f"{file.name}: {len(file.payload)} bytes; the server takes 5 MB.")
    return made[0], made[1]


def circo_submission(benchmark: Benchmark, rankings: Ints) -> SubmissionFile:
    """The CIRCO file: 50 integer COCO ids per query, keys 0..Q-1.

    Args:
        benchmark: A CIRCO-style split with its gallery listing.
        rankings: (Q, >= 50) gallery indices, best first.

    Raises:
        SubmissionError: when the server would reject or misread the file.
    """
    _require_style(benchmark, "circo")
    names = _named_lists(benchmark, rankings, RANKING_DEPTH)
    try:
        content = {key: [int(name) for name in row] for key, row in names.items()}
    except ValueError as problem:
        raise SubmissionError(f"CIRCO galleries are named by COCO id: {problem}.") from None
    return _validated(benchmark, f"{benchmark.name}_{benchmark.split}.json", content)


def write_submission(files: Sequence[SubmissionFile], folder: str | Path) -> tuple[Path, ...]:
    """Write validated files side by side, each atomically; returns their paths.

    Raises:
        SubmissionError: when two files have one name (the second would replace the first).
    """
    folder = Path(folder)
    paths = tuple(folder / file.name for file in files)
    if len(set(paths)) < len(paths):
        raise SubmissionError(
            f"file names must be distinct, given {listing([f.name for f in files])}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path, file in zip(paths, files, strict=True):
        _replace(path, file.payload)
    return paths


def _named_lists(benchmark: Benchmark, rankings: Ints, depth: int) -> dict[str, list[str]]:
    """Query id -> names, from (Q, >= depth) gallery indices."""
    view = index_category(benchmark)
    rows, gallery = len(view.queries), view.gallery
    if not gallery:
        state = benchmark.protocol.get("gallery_listing", "empty")
        raise SubmissionError(f"{benchmark.name}: indices need a gallery. Listing: {state}.")
    integers = np.issubdtype(rankings.dtype, np.integer)
    if rankings.ndim != 2 or len(rankings) != rows or not integers:
        raise SubmissionError(
            f"rankings are {rankings.dtype}{rankings.shape}; expected integers, one row for each "
            f"of {rows} queries."
        )
    if rankings.size and (rankings.min() < 0 or rankings.max() >= len(gallery)):
        raise SubmissionError(
            f"rankings run from {rankings.min()} to {rankings.max()}; the gallery has indices 0 to "
            f"{len(gallery) - 1}."
        )
    return {
        query.query_id: [gallery[index] for index in row[:depth]]
        for query, row in zip(view.queries, rankings.tolist(), strict=True)
    }


def _validated(benchmark: Benchmark, name: str, content: Mapping[str, Any]) -> SubmissionFile:
    payload = json.dumps(content, separators=(",", ":")).encode()
    try:
        check_predictions(benchmark, json.loads(payload), exact=True)
    except PredictionError as problem:
        raise SubmissionError(f"{name} was not written: {problem}") from None
    return SubmissionFile(name, payload)


def _require_style(benchmark: Benchmark, style: str) -> None:
    if benchmark.family != style:
        raise SubmissionError(
            f"{benchmark.name} has the family {benchmark.family!r}, not {style!r}; only CIRR and "
            "CIRCO have servers."
        )


def _replace(path: Path, payload: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
