"""What stages with a row for each image of a set share: their keys and the order of reading."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from storage.tables.plans import Keys
from tasks.settings import PictureSettings
from tasks.stages.image_sets import ImageSet
from tasks.stages.stage import Stage
from tasks.training.triplet_sets import TripletImages


class ImageStage(Stage):
    """A table of something of every image of a set."""

    images: ImageSet | TripletImages
    pictures: PictureSettings = PictureSettings()

    def planned(self) -> Sequence[str]:
        """Image ids."""
        return self.images.ids(self.root)

    def planned_keys(self) -> Keys:
        """The ids; as derived keys where they follow from a listing."""
        return self.images.planned_keys(self.root)

    def read_order(self, keys: Sequence[str]) -> Sequence[str] | pl.Series:
        """The ids in the order in which the images are stored."""
        return self.images.in_order(self.root, keys)
