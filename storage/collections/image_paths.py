"""Where the images of a listing came from, in memory: for many questions about few images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from storage.tables.key_columns import key_series


@dataclass(frozen=True)
class ImagePaths:
    """The inputs of all images of a listing: about 100 bytes and its path for each.

    Attributes:
        rows: `image_id`, `source` and `path` of each input, by image and then by path.
        images: distinct images among them.
    """

    rows: pl.DataFrame
    images: int

    @classmethod
    def of(cls, rows: pl.DataFrame) -> ImagePaths:
        """Take the rows of inputs that are images, in any order."""
        own = rows.select("image_id", "source", "path", "source_key")
        own = own.sort("image_id", "path", "source_key").drop("source_key")
        places = pl.Enum(own["source"].unique().sort())  # a few texts, and a number for each row
        own = own.with_columns(pl.col("source").cast(places)).rechunk()
        return cls(own, own["image_id"].n_unique())

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return int(self.rows.estimated_size())

    def find(self, image_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The files of some images; none for an image that the listing lacks."""
        ids, wanted = self.rows["image_id"], key_series(image_ids)
        starts = ids.search_sorted(wanted, side="left").to_list()
        ends = ids.search_sorted(wanted, side="right").to_list()
        places = [row for start, end in zip(starts, ends, strict=True) for row in range(start, end)]
        own = self.rows[places]
        found: dict[str, tuple[str, ...]] = dict.fromkeys(image_ids, ())
        for image_id, *row in own.iter_rows():
            found[image_id] = (*found[image_id], os.path.join(*row))
        return found
