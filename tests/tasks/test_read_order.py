"""Stages over pictures are planned in the order in which the pictures are stored."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa

import tasks.stages
from storage.collections.places import places_of
from storage.locations.location import Location
from storage.tables.table import Table
from tasks.stages.image_sets import ImageSet
from tasks.stages.stage import Stage, Tick
from tests.fakes.stored_pictures import counted_reads, store_pictures


def below(kind: type[Stage]) -> Iterator[type[Stage]]:
    for each in kind.__subclasses__():
        yield each
        yield from below(each)


def test_every_stage_keyed_by_the_pictures_that_it_reads_says_so() -> None:
    for module in pkgutil.iter_modules(tasks.stages.__path__):
        importlib.import_module(f"tasks.stages.{module.name}")
    readers = {
        stage.__name__
        for stage in below(Stage)
        if stage.__module__.startswith("tasks.")
        and "self.images.read(" in inspect.getsource(stage.rows)
    }
    ordered = {s.__name__ for s in below(Stage) if s.read_order is not Stage.read_order}
    assert {"CaptionStage", "ImageFeatureStage"} < readers
    assert readers <= ordered


class Sizes(Stage):
    """A stage whose rows are the sizes of pictures' files."""

    table_name: ClassVar[str] = "captions"
    producer: ClassVar[str] = "test/sizes/1"
    images: ImageSet
    keys: tuple[str, ...]

    @property
    def title(self) -> str:
        return "sizes"

    def identity(self) -> dict[str, Any]:
        return {}

    def planned(self) -> list[str]:
        return sorted(self.keys)

    def read_order(self, keys: Sequence[str]) -> pl.Series:
        return self.images.in_order(self.root, keys)

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        data = dict(self.images.read(self.root, members))
        texts = [[str(len(data[key]))] for key in members]
        return self.table().rows(
            image_id=list(members), captions=texts, raw=texts, n=[1] * len(members)
        )


def fill(stage: Sizes) -> Table:
    from tasks.stages.run import plan_stage

    plan = plan_stage.fn(stage)
    for shard in plan.shards:
        stage.table().publish(shard, stage.rows(shard.members, lambda count: None))
    return stage.table()


def test_a_planned_stage_reads_each_picture_once_and_makes_the_rows_of_any_order(
    tmp_path: Path,
) -> None:
    location = Location(str(tmp_path / "root"))
    stored = store_pictures(location, 6, 20)
    gallery = sorted(stored)[::2]
    stage = Sizes(
        root=str(tmp_path / "root"),
        images=ImageSet(collection="any"),
        keys=tuple(gallery),
        shard_size=10,
    )
    places_of(location).find(gallery)
    with counted_reads() as asked:
        rows = fill(stage).read(["captions"])
    assert asked.opens <= 6 + 6
    assert asked.bytes < 1.2 * sum(len(stored[key]) for key in stored)
    expected = {key: [str(len(stored[key]))] for key in gallery}
    assert dict(rows.iter_rows()) == expected
    assert rows["image_id"].to_list() == gallery
