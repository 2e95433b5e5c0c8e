"""Tiny benchmarks in the real on-disk layouts, small enough to work out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CIRR_NAMES = tuple(f"dev-{image}-0-img0" for image in range(8))


def write_json(path: Path, value: Any) -> Path:
    """Write JSON, making the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def touch(paths: Sequence[Path]) -> None:
    """Make empty files: what an image probe sees."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def cirr_records(names: Sequence[str] = CIRR_NAMES, hidden: bool = False) -> list[dict[str, Any]]:
    """Two queries over two overlapping groups: images 0-5 and 2-7."""
    records = []
    for row, (first, reference, target) in enumerate([(0, 0, 3), (2, 7, 2)]):
        members = list(names[first : first + 6])
        group = {"id": row, "members": members, "reference_rank": members.index(names[reference])}
        record = {
            "pairid": 100 + row,
            "reference": names[reference],
            "caption": f"caption {row}",
            "img_set": group,
        }
        if not hidden:
            record |= {"target_hard": names[target], "target_soft": {names[target]: 1.0}}
        records.append(record)
    return records


def write_cirr(root: Path, split: str = "val", names: Sequence[str] = CIRR_NAMES) -> Path:
    """CIRR's annotation files for eight images and two queries."""
    records = cirr_records(names, hidden=split == "test1")
    write_json(root / "captions" / f"cap.rc2.{split}.json", records)
    files = {name: f"./dev/{name}.png" for name in names}
    write_json(root / "image_splits" / f"split.rc2.{split}.json", files)
    return root


def circo_records(hidden: bool = False) -> list[dict[str, Any]]:
    """Two queries: one with two right answers, one with one."""
    public = [
        {"target_img_id": 3, "gt_img_ids": [3, 5], "semantic_aspects": ["addition", "negation"]},
        {"target_img_id": 9, "gt_img_ids": [9], "semantic_aspects": ["addition"]},
    ]
    return [
        {
            "id": row,
            "reference_img_id": reference,
            "relative_caption": f"has thing {row}",
            "shared_concept": "a dog",
            **({} if hidden else public[row]),
        }
        for row, reference in enumerate([1, 2])
    ]


def write_circo(root: Path, split: str = "val", ids: Sequence[int] | None = None) -> Path:
    """CIRCO's annotation file, and COCO's listing when ``ids`` are given."""
    write_json(root / "annotations" / f"{split}.json", circo_records(hidden=split == "test"))
    if ids is not None:
        write_circo_listing(root, ids)
    return root


def write_circo_listing(root: Path, ids: Sequence[int]) -> Path:
    """COCO's listing of the unlabeled images."""
    images = [{"id": image, "file_name": f"{image:012d}.jpg"} for image in ids]
    path = root / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json"
    return write_json(path, {"images": images})


def write_fashioniq(
    root: Path,
    galleries: dict[str, Sequence[str]],
    queries: dict[str, list[dict[str, Any]]],
    split: str = "val",
) -> Path:
    """FashionIQ's two files for each category."""
    for category, names in galleries.items():
        write_json(root / "image_splits" / f"split.{category}.{split}.json", list(names))
        write_json(root / "captions" / f"cap.{category}.{split}.json", queries[category])
    return root


def fashioniq_query(candidate: str, target: str | None, *captions: str) -> dict[str, Any]:
    """One FashionIQ record; no target for the test split."""
    record: dict[str, Any] = {"candidate": candidate, "captions": list(captions)}
    return record if target is None else {**record, "target": target}


ICIR_QUERIES = ("query/a/1.jpg,at night,a", "query/b/1.jpg,as a toy,b", "query/a/2.jpg,as a toy,a")
ICIR_DATABASE = (
    "database/a/1.jpg,at night,a",
    "database/a/2.jpg,as a toy,a",
    "database/a/3.jpg,,a",
    "database/a/4.jpg,at night,a",
    "database/b/1.jpg,as a toy,b",
    "database/b/2.jpg,at night,b",
    "database/c/1.jpg,at night,c",
)


def write_icir(
    root: Path,
    queries: Sequence[str] = ICIR_QUERIES,
    database: Sequence[str] = ICIR_DATABASE,
) -> Path:
    """i-CIR's two lists: two instances that are asked for, and a third one that is not."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "query_files.csv").write_text("\n".join(queries) + "\n")
    (root / "database_files.csv").write_text("\n".join(database) + "\n")
    return root


def lasco_triplets() -> list[dict[str, Any]]:
    """Two triplets; the second one's reference is not an image of the corpus."""
    return [
        {
            "qid": 7000 + row,
            "query-image": [reference, f"val2014/COCO_val2014_{reference:012d}.jpg"],
            "query-text": f"text {row}",
            "target-image": [target, f"val2014/COCO_val2014_{target:012d}.jpg"],
        }
        for row, (reference, target) in enumerate([(42, 73), (99, 42)])
    ]


def lasco_corpus() -> list[dict[str, Any]]:
    """Three images, with the folder above the triplets' in their paths."""
    return [
        {"id": image, "path": f"val/val2014/COCO_val2014_{image:012d}.jpg"}
        for image in (42, 73, 74)
    ]


def write_lasco(root: Path) -> Path:
    """LaSCo's two files of the validation split."""
    write_json(root / "lasco_val.json", lasco_triplets())
    write_json(root / "lasco_val_corpus.json", lasco_corpus())
    return root


def genecis_record(task: str, reference: int, target: int, *others: int) -> dict[str, Any]:
    """One query of GeneCIS, with the fields beyond those that are read."""

    def image(number: int) -> dict[str, Any]:
        if task.endswith("object"):
            return {"val_image_id": number, "filepath": f"val2017/{number:012d}.jpg"}
        box = [1.5, 2, 10 + number, 8]
        return {"image_id": str(number), "instance_bbox": box, "object_name": "cup"}

    return {
        "reference": image(reference),
        "target": image(target),
        "gallery": [image(other) for other in others],
        "condition": "red",
    }


def pinpoint_content() -> dict[str, Any]:
    """Two queries over four images: one of one reference, one of two."""
    return {
        "gallery": ["a.png", "b.png", "c.png", "d.png"],
        "queries": [
            {
                "id": "q0",
                "references": ["r.png"],
                "texts": ["make it red", "in red"],
                "positives": ["a.png", "b.png"],
                "negatives": ["c.png"],
            },
            {
                "id": "q1",
                "references": ["d.png", "r.png"],
                "texts": ["both together", "together"],
                "positives": ["c.png"],
                "negatives": [],
            },
        ],
    }
