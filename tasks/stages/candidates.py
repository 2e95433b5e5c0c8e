"""Candidates: the first K images of each ranking, and the members of each query's group.

Tables of what a second look finds among them are filled by the stages of this kind.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from storage.tables.schemas import OK
from tasks.settings import PictureSettings
from tasks.stages.image_sets import ImageSet
from tasks.stages.rankings import RankingStage
from tasks.stages.stage import Stage


class CandidateStage(Stage):
    """A table about the best images of every query."""

    first: RankingStage
    """The ranking whose best images are looked at."""
    count: int = Field(ge=1)
    """K, images of each ranking that are candidates."""
    pictures: PictureSettings = PictureSettings()

    def files(self, image_ids: Iterable[str]) -> dict[str, bytes]:
        """Image id -> file, of images of the benchmark's collection."""
        collection = ImageSet(collection=self.first.benchmark.collection_name)
        return dict(collection.read(self.root, sorted(image_ids)))


def lists_of(stage: RankingStage, count: int) -> dict[str, tuple[list[str], list[str]]]:
    """Query id -> names of its first K images, and of the members of its group, best first."""
    columns = ["names", "subset_names", "status"]
    rows = stage.table().read(columns, stage.planned()).iter_rows()
    return {key: (names[:count], group) for key, names, group, status in rows if status == OK}
