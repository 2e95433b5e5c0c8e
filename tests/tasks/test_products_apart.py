"""Photographs of clothing in Fashion200k's layout: no pair shows one product twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl

from storage.collections.collection import Collection, ingest
from storage.collections.sources.fashion200k import FOLDERS
from storage.locations.location import Location
from tasks.stages.pair_samples import PairSample, PairSource

PHOTOGRAPHS = {
    "dress": "dress",
    "jacket": "outwear",
    "pants": "pants",
    "skirt": "skirt",
    "top": "t-shirt",
}
"""Meta class -> folder of photographs."""
PRODUCTS, VIEWS = 3, 2


def as_fashion200k(photographs: Path, out: Path) -> None:
    """Lay photographs out as products of a few views; each class has one label file."""
    for number, (meta_class, folder) in enumerate(PHOTOGRAPHS.items()):
        files = sorted((photographs / folder).iterdir())[: PRODUCTS * VIEWS]
        lines = []
        for i, file in enumerate(files):
            product = 100 * number + i // VIEWS
            path = f"women/{FOLDERS[meta_class]}/all/{product}/{product}_{i % VIEWS}.jpeg"
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, out / path)
            lines.append(f"{path}\t0.9\tdescription\n")
        (out / "labels").mkdir(exist_ok=True)
        (out / f"labels/{meta_class}_train_detect_all.txt").write_text("".join(lines))


def test_pairs_lie_in_a_meta_class_and_show_two_products(shared_data: Path, tmp_path: Path) -> None:
    as_fashion200k(shared_data / "clothing" / "images", tmp_path / "f200k")
    root = str(tmp_path / "root")
    ingest(Location(root), tmp_path / "f200k", "f200k", layout="fashion200k")
    rows = Collection.open(Location(root), "f200k").rows().filter(pl.col("status") == "ok")
    product = {i: path.split("/")[3] for i, path in rows.select("image_id", "path").iter_rows()}
    meta_class = dict(rows.select("image_id", "meta_class").iter_rows())
    assert len(product) == len(PHOTOGRAPHS) * PRODUCTS * VIEWS
    apart = PairSample(
        sources=(PairSource(collection="f200k"),),
        count=len(PHOTOGRAPHS) * PRODUCTS * VIEWS * (PRODUCTS - 1) * VIEWS,  # all there are
    )
    for pair in apart.pairs(root):
        assert meta_class[pair.reference] == meta_class[pair.target] == pair.meta_class
        assert product[pair.reference] != product[pair.target]
    together = PairSample(
        sources=(PairSource(collection="f200k", same_product=True),),
        count=len(PHOTOGRAPHS) * PRODUCTS * VIEWS * (PRODUCTS * VIEWS - 1),
    )
    assert len(together.pairs(root)) - len(apart.pairs(root)) == len(product) * (VIEWS - 1)
    (own,) = apart.identity(root)["sources"]
    (before,) = together.identity(root)["sources"]
    assert set(own) - set(before) == {"apart"}
    assert set(before) == {"collection", "within", "weight", "images"}  # as before the rule
