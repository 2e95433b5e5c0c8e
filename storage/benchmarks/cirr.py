"""CIRR (Liu et al., ICCV 2021): real-life photographs with six-image hard-negative groups.

Layout: ``captions/cap.rc2.{split}.json``, ``image_splits/split.rc2.{split}.json`` and images
named by the split file: under the root, under ``img_raw``, or beside the root, which is then the
folder ``cirr`` (``CIRR/cirr/captions`` beside ``CIRR/dev``, as the published programs have it).
Predictions: ``{"version", "metric", pairid: names}``, one file for the gallery and one for the
groups.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.benchmarks.errors import AnnotationError, PredictionError, SubmissionError
from storage.benchmarks.facts import BenchmarkFacts, Lists, Metrics, Split
from storage.benchmarks.parsing import (
    choose,
    find_root,
    listing,
    read_json,
    require_field,
    require_names,
    require_records,
    require_unique,
    shorten,
)
from storage.benchmarks.predictions import (
    RANKING_DEPTH,
    SUBSET_DEPTH,
    Kind,
    PredictionForm,
    RawLists,
    in_query_order,
)
from storage.benchmarks.records import Benchmark, Query
from storage.benchmarks.submissions import SubmissionFile, named_lists, validated_file

SPLITS = (
    Split(name="train", offered=False),
    Split(name="val"),
    Split(name="test1", targets=False),
)
FOLDERS = ("cirr", "CIRR", "CIRR/cirr")
VERSION = "rc2"
FILES: Mapping[str, Kind] = {"recall": "ranking", "recall_subset": "subset"}
MAX_BYTES = 5_000_000  # the server's limit is 5 MB; the smaller reading is always safe


def load_cirr(root: Path, split: str, *, exclude_reference: bool = True) -> Benchmark:
    """Annotations of one CIRR split; images are looked for later.

    Args:
        root: Folder with ``captions`` and ``image_splits``, or up to two folders above it.
        split: ``val``, ``test1`` (targets hidden) or ``train``.
        exclude_reference: Take the reference out of its query's ranking (the protocol).

    Raises:
        AnnotationError: for unknown values, absent files or broken records.
    """
    choose("split", split, [each.name for each in SPLITS])
    choose("exclude_reference", exclude_reference, (True, False))
    captions = Path("captions") / f"cap.rc2.{split}.json"
    root = find_root(root, FOLDERS, captions)
    files = _read_split(root / "image_splits" / f"split.rc2.{split}.json")
    records = require_records(read_json(root / captions), root / captions)
    queries = tuple(
        _read_query(record, files, f"{root / captions}, record {row}")
        for row, record in enumerate(records)
    )
    require_unique(tuple(query.query_id for query in queries), str(root / captions))
    # The parent by name: a linked folder `cirr` keeps its images beside the link.
    image_folders = (root, root / "img_raw", Path(os.path.abspath(root)).parent)
    return Benchmark(
        name="cirr",
        split=split,
        queries=queries,
        galleries={"": tuple(files)},
        image_candidates={
            name: tuple(str(folder / file) for folder in image_folders)
            for name, file in files.items()
        },
        protocol={
            "split": split,
            "gallery": "all images of the split",
            "exclude_reference": exclude_reference,
            "text": "caption",
            "subset": "the five other members of the reference's group",
            "soft_targets": "ignored",
        },
    )


def _read_split(path: Path) -> dict[str, str]:
    """Image name -> file relative to the image root, in the file's order."""
    files = read_json(path)
    if not isinstance(files, dict) or not files:
        raise AnnotationError(f"{path}: expected an object name -> file, found {shorten(files)}.")
    for name, file in files.items():
        # The path is joined to the image root: it must not lead out of it.
        if not isinstance(file, str) or Path(file).is_absolute() or ".." in Path(file).parts:
            raise AnnotationError(f"{path}: {name!r} has the file {shorten(file)}, expected ./...")
    return files


def _read_query(record: Any, files: Mapping[str, str], where: str) -> Query:
    group = require_field(record, "img_set", dict, where)
    members = require_names(require_field(group, "members", list, where), where)
    reference = require_field(record, "reference", str, where)
    targets = (require_field(record, "target_hard", str, where),) if "target_hard" in record else ()
    for name in (reference, *targets):
        if name not in members:
            raise AnnotationError(f"{where}: {name!r} is not a member of its group {members}.")
    for name in members:
        if name not in files:
            raise AnnotationError(f"{where}: {name!r} is not an image of this split.")
    caption = require_field(record, "caption", str, where)
    return Query(
        query_id=str(require_field(record, "pairid", int, where)),
        reference=reference,
        text=caption,
        targets=targets,
        subset=tuple(name for name in members if name != reference),
        captions=(caption,),
    )


def _lists(benchmark: Benchmark, data: Mapping[str, Any]) -> tuple[Kind, RawLists]:
    metric, version = data.get("metric"), data.get("version")
    if not isinstance(metric, str) or metric not in FILES:
        raise PredictionError(
            f'"metric" is {shorten(metric)}; a CIRR file says which it is for: '
            f"{listing(list(FILES))}."
        )
    if version != VERSION:
        raise PredictionError(f'"version" is {shorten(version)}; write "{VERSION}".')
    lists = {key: value for key, value in data.items() if key not in ("metric", "version")}
    wanted = [query.query_id for query in benchmark.queries]
    return FILES[metric], {"": in_query_order(lists, wanted, "pair id")}


PREDICTIONS = PredictionForm(_lists)


def cirr_submission(
    benchmark: Benchmark, rankings: Lists, group_rankings: Lists
) -> tuple[SubmissionFile, ...]:
    """The two CIRR files: the gallery ranking and the ranking inside each group.

    Args:
        benchmark: A split with its gallery.
        rankings: (Q, >= 50) gallery indices, best first, the reference excluded.
        group_rankings: (Q, >= 3) gallery indices of members, best first.

    Raises:
        SubmissionError: The server would reject or misread a file.
    """
    lists = {
        "recall": (rankings[""], RANKING_DEPTH),
        "recall_subset": (group_rankings[""], SUBSET_DEPTH),
    }
    made = []
    for metric, (ranked, depth) in lists.items():
        names = named_lists(benchmark, ranked, depth)
        content = {"version": VERSION, "metric": metric, **names}
        name = f"{benchmark.name}_{benchmark.split}_{metric}.json"
        made.append(validated_file(benchmark, PREDICTIONS, name, content))
    for file in made:
        if len(file.payload) >= MAX_BYTES:
            raise SubmissionError(f"{file.name}: {len(file.payload)} bytes; the server takes 5 MB.")
    return tuple(made)


BENCHMARK = BenchmarkFacts(
    name="cirr",
    title="CIRR",
    load=load_cirr,
    splits=SPLITS,
    metrics=Metrics(
        main="recall@1",
        recalls=(1, 5, 10, 50),
        group_recalls=(1, 2, 3),
        averaged=("recall@5", "recall_subset@1"),
    ),
    columns=(
        "recall@1",
        "recall@5",
        "recall@10",
        "recall@50",
        "recall_subset@1",
        "recall_subset@2",
        "recall_subset@3",
    ),
    terminal_columns={
        "recall@1": "R@1",
        "recall@5": "R@5",
        "recall@10": "R@10",
        "recall_subset@1": "Rs@1",
    },
    predictions=PREDICTIONS,
    submission=cirr_submission,
    paper="cirr",
)
