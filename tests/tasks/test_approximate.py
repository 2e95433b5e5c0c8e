"""The index of a gallery: made once, kept with its recall, made again when it is damaged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from storage.checks.root import check_root
from storage.locations.location import Location
from storage.tables.table import Table, open_table
from tasks.settings import SearchSettings


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """400 images around a few centres."""
    pytest.importorskip("faiss", reason="`make approximate` was not run")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((9, 16))[rng.integers(0, 9, 400)]
    vectors = (vectors + 0.5 * rng.standard_normal((400, 16))).astype(np.float32)
    spec = {"producer": "cirflow/image_features/1", "dim": 16, "dtype": "float32"}
    table = open_table(Location(str(tmp_path / "root")), "image_features", spec)
    (shard,) = table.plan([f"{n:064x}" for n in range(400)], 400).shards
    table.publish(shard, table.rows(image_id=list(shard.members), vector=vectors))
    return table


def opened(table: Table) -> tuple[Any, Any, Any]:
    from models.retrieval.method_records import Recipe
    from tasks.galleries import open_gallery

    keys = [f"{n:064x}" for n in range(400)]
    stage = SimpleNamespace(
        existing_table=lambda: table, planned=lambda: keys, planned_keys=lambda: keys
    )
    recipe = Recipe(query={"text": 1.0})
    return {"image": stage}, recipe, open_gallery({"image": stage}, ["image"], 0.0)  # type: ignore[dict-item]


def test_an_index_is_made_once_and_again_when_damaged(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.retrieval import approximate
    from models.retrieval.gallery import Gallery
    from models.retrieval.search import top_k
    from tasks.approximate import index_of

    made: list[int] = []
    build = approximate.build_index
    monkeypatch.setattr(approximate, "build_index", lambda *a: made.append(1) or build(*a))
    stages, recipe, gallery = opened(table)
    settings = SearchSettings(approximate_above=1, candidates=50, recall=0.9)
    for _ in range(2):
        index, recall = index_of(settings, stages, recipe, gallery)
        assert recall.recall >= 0.9
    assert made == [1]
    images = Gallery(gallery.features, recipe.gallery_vectors)
    index.nprobe = recall.of
    query, none = images[np.array([5])], np.array([-1])
    found = approximate.nearest(index, images, query, 10, 400, none)
    assert (found.indices == top_k(query, images[:], 10).indices).all()

    (file,) = (tmp_path / "root").rglob("index-*.faiss")
    cut = file.read_bytes()[:-400]
    file.unlink()  # the index that is mapped keeps its pages
    file.write_bytes(cut)
    (fault,) = check_root(table.location).faults
    assert fault.path.endswith(file.name)
    assert index_of(settings, stages, recipe, gallery)[1] == recall
    assert made == [1, 1]
    assert check_root(table.location).faults == []
    index_of(settings.changed(candidates=60), stages, recipe, gallery)
    assert len(list((tmp_path / "root").rglob("index-*.faiss"))) == 2


def test_an_index_that_is_removed_while_it_is_opened_is_made_again(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import approximate

    read, removed = approximate.read_tail, []

    def raced(home: Location, path: str, size: int) -> bytes:
        if not removed:
            home.remove(path)
            removed.append(path)
        return read(home, path, size)

    monkeypatch.setattr(approximate, "read_tail", raced)
    stages, recipe, gallery = opened(table)
    settings = SearchSettings(approximate_above=1, candidates=50, recall=0.9)
    index, _ = approximate.index_of(settings, stages, recipe, gallery)
    assert index.ntotal == 400
    assert [table.location.exists(path) for path in removed] == [True]


def test_images_of_other_collections_leave_an_index_as_it_is(table: Table, tmp_path: Path) -> None:
    from tasks.approximate import index_of

    stages, recipe, gallery = opened(table)
    settings = SearchSettings(approximate_above=1, candidates=50, recall=0.9)
    index_of(settings, stages, recipe, gallery)
    (shard,) = table.plan([f"{n:064x}" for n in range(400, 410)], 10).shards
    table.publish(shard, table.rows(image_id=list(shard.members), vector=np.ones((10, 16), "f4")))
    stages, recipe, gallery = opened(table)
    assert index_of(settings, stages, recipe, gallery)[0].ntotal == 400
    assert len(list((tmp_path / "root").rglob("index-*.faiss"))) == 1
