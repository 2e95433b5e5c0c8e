"""LaSCo (Levy et al., AAAI 2024): COCO 2014 photographs, texts made from VQA 2.0.

Layout: ``lasco_{split}.json``, ``lasco_{split}_corpus.json`` and ``{train,val}2014/*.jpg``. A
triplet names images as ``[id, path]``; a corpus entry has ``id`` and ``path``. The two write paths
differently (``val2014/...`` and ``val/val2014/...``), so images are joined by their integer ids.
Predictions: ``{row of the triplet: ids}``; question ids of VQA are not known to be unique.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from storage.benchmarks.errors import AnnotationError
from storage.benchmarks.facts import BenchmarkFacts, Metrics, Split
from storage.benchmarks.parsing import (
    choose,
    find_root,
    read_json,
    require_field,
    require_records,
    shorten,
)
from storage.benchmarks.predictions import PredictionForm, coco_id, lists_by_category
from storage.benchmarks.records import Benchmark, Query

SPLITS = (Split(name="train", offered=False), Split(name="val"))
FOLDERS = ("lasco", "LaSCo", "downloads", "LaSCo/downloads")
IMAGE_FOLDERS = (".", "coco", "images", "..")


def load_lasco(root: Path, split: str, *, exclude_reference: bool = False) -> Benchmark:
    """Annotations of one LaSCo split; images are looked for later.

    Args:
        root: Folder of the annotation files, or a folder above it.
        split: ``val`` or ``train``.
        exclude_reference: Take the reference out of its query's ranking. No rule is published;
            released evaluations keep it.

    Raises:
        AnnotationError: for unknown values, absent files or broken records.
    """
    choose("split", split, [each.name for each in SPLITS])
    choose("exclude_reference", exclude_reference, (True, False))
    triplets = Path(f"lasco_{split}.json")
    root = find_root(root, FOLDERS, triplets)
    corpus = root / f"lasco_{split}_corpus.json"
    files: dict[str, str] = {}
    for row, record in enumerate(require_records(read_json(corpus), corpus)):
        where = f"{corpus}, record {row}"
        name = str(require_field(record, "id", int, where))
        if name in files:
            raise AnnotationError(f"{where}: id {name} occurs twice.")
        files[name] = _file(require_field(record, "path", str, where), where)
    gallery = tuple(files)
    known = frozenset(gallery)
    queries = tuple(
        _read_query(record, row, known, files, f"{root / triplets}, record {row}")
        for row, record in enumerate(require_records(read_json(root / triplets), root / triplets))
    )
    return Benchmark(
        name="lasco",
        split=split,
        queries=queries,
        galleries={"": gallery},
        image_candidates={
            name: tuple(str(root / folder / file) for folder in IMAGE_FOLDERS)
            for name, file in files.items()
        },
        protocol={
            "split": split,
            "gallery": f"all images of {corpus.name}",
            "exclude_reference": exclude_reference,
            "text": "query-text",
        },
    )


def _read_query(
    record: Any, row: int, corpus: frozenset[str], files: dict[str, str], where: str
) -> Query:
    """One triplet; the file of a reference outside the corpus is added to the files."""
    require_field(record, "qid", int, where)
    reference, file = _image(record, "query-image", where)
    target, _ = _image(record, "target-image", where)
    if target not in corpus:
        raise AnnotationError(f"{where}: the target {target} is not an image of the corpus.")
    if target == reference:
        raise AnnotationError(f"{where}: the reference {reference} is its own target.")
    files.setdefault(reference, file)
    text = require_field(record, "query-text", str, where)
    return Query(str(row), reference, text, targets=(target,), captions=(text,))


def _image(record: Any, field: str, where: str) -> tuple[str, str]:
    """Name and file of an image that a triplet names."""
    pair = require_field(record, field, list, where)
    if len(pair) != 2 or type(pair[0]) is not int or not isinstance(pair[1], str):
        raise AnnotationError(f"{where}: field {field!r} is {shorten(pair)}, expected [id, path].")
    return str(pair[0]), _file(pair[1], where)


def _file(path: str, where: str) -> str:
    """The last folder and the file of a path, such as ``val2014/COCO_val2014_...jpg``."""
    parts = PurePosixPath(path).parts
    if len(parts) < 2 or ".." in parts or parts[0] == "/":
        raise AnnotationError(f"{where}: path {shorten(path)} must be val2014/FILE or the like.")
    return "/".join(parts[-2:])


BENCHMARK = BenchmarkFacts(
    name="lasco",
    title="LaSCo",
    load=load_lasco,
    splits=SPLITS,
    metrics=Metrics(main="recall@1", recalls=(1, 5, 10, 50)),
    columns=("recall@1", "recall@5", "recall@10", "recall@50"),
    terminal_columns={"recall@1": "R@1", "recall@10": "R@10", "recall@50": "R@50"},
    predictions=PredictionForm(lists_by_category, coco_id),
    family="cirr",
)
