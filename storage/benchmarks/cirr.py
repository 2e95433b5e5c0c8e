"""CIRR (Liu et al., ICCV 2021): real-life photographs with six-image hard-negative groups.

Layout: ``captions/cap.rc2.{split}.json``, ``image_splits/split.rc2.{split}.json`` and images
named by the split file, either directly under the root or under ``img_raw``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.benchmarks.errors import AnnotationError
from storage.benchmarks.parsing import (
    choose,
    find_root,
    read_json,
    require_field,
    require_names,
    require_records,
    require_unique,
    shorten,
)
from storage.benchmarks.records import Benchmark, Query

SPLITS = ("train", "val", "test1")
IMAGE_FOLDERS = ("", "img_raw")


def load_cirr(root: Path, split: str, *, exclude_reference: bool = True) -> Benchmark:
    """Annotations of one CIRR split; images are looked for later.

    Args:
        root: Folder with ``captions`` and ``image_splits`` (or its parent).
        split: ``val``, ``test1`` (targets hidden) or ``train``.
        exclude_reference: Take the reference out of its query's ranking (the protocol).

    Raises:
        AnnotationError: for unknown values, absent files or broken records.
    """
    choose("split", split, SPLITS)
    choose("exclude_reference", exclude_reference, (True, False))
    captions = Path("captions") / f"cap.rc2.{split}.json"
    root = find_root(root, ("cirr", "CIRR"), captions)
    files = _read_split(root / "image_splits" / f"split.rc2.{split}.json")
    records = require_records(read_json(root / captions), root / captions)
    queries = tuple(
        _read_query(record, files, f"{root / captions}, record {row}")
        for row, record in enumerate(records)
    )
    require_unique(tuple(query.query_id for query in queries), str(root / captions))
    return Benchmark(
        name="cirr",
        split=split,
        queries=queries,
        galleries={"": tuple(files)},
        image_candidates={
            name: tuple(str(root / folder / file) for folder in IMAGE_FOLDERS)
            for name, file in files.items()
        },
        protocol={
            "family": "cirr",
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
