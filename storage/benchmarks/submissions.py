"""The evaluation servers' submission files, validated as a whole before a byte is written.

Each benchmark builds its own content from `named_lists`; `validated_file` reads it back by the
checks that guard predictions files.
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
from storage.benchmarks.predictions import PredictionForm, check_predictions
from storage.benchmarks.records import Benchmark
from storage.words import agreed

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class SubmissionFile:
    """One validated file, ready to be written anywhere."""

    name: str
    payload: bytes


def write_submission(files: Sequence[SubmissionFile], folder: str | Path) -> tuple[Path, ...]:
    """Write validated files into one folder, each atomically; returns their paths.

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


def named_lists(benchmark: Benchmark, rankings: Ints, depth: int) -> dict[str, list[str]]:
    """Query id -> the first `depth` names, of a benchmark with one gallery.

    Args:
        benchmark: With its gallery.
        rankings: (Q, >= depth) gallery indices, best first.
        depth: Names for each query.

    Raises:
        SubmissionError: The gallery is unknown, or the rankings do not fit it.
    """
    view = index_category(benchmark)
    rows, gallery = len(view.queries), view.gallery
    if not gallery:
        state = benchmark.protocol.get("gallery_listing", "empty")
        raise SubmissionError(f"{benchmark.name}: indices need a gallery. Listing: {state}.")
    integers = np.issubdtype(rankings.dtype, np.integer)
    if rankings.ndim != 2 or len(rankings) != rows or not integers:
        raise SubmissionError(
            f"rankings are {rankings.dtype}{rankings.shape}; expected integers, one row for each "
            f"of {rows} {agreed(rows, 'query')}."
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


def validated_file(
    benchmark: Benchmark, form: PredictionForm, name: str, content: Mapping[str, Any]
) -> SubmissionFile:
    """The file of some content, if it reads back as complete predictions.

    Raises:
        SubmissionError: The benchmark's server would reject or misread the file.
    """
    payload = json.dumps(content, separators=(",", ":")).encode()
    try:
        check_predictions(benchmark, form, json.loads(payload), exact=True)
    except PredictionError as problem:
        raise SubmissionError(f"{name} was not written: {problem}") from None
    return SubmissionFile(name, payload)


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
