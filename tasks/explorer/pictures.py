"""A collection as a page shows it: pictures with captions, found by words, and unusable inputs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from storage.collections.collection import Collection
from storage.locations.location import Location
from storage.tables.listing import list_tables
from storage.tables.schemas import OK
from storage.tables.table import Table, load_table
from tasks.choices import CaptionKind
from tasks.profile_stages import caption_stage
from tasks.settings import Profile

UNUSABLE: Final = 200
"""Inputs that cannot be used of which a page tells."""


@dataclass(frozen=True)
class Shown:
    """One image of a collection.

    Attributes:
        image_id: sha256 of its file.
        path: Where it lies in its source.
        captions: Its captions; empty where it has none.
        reason: Why it has none; empty where it was not captioned yet.
    """

    image_id: str
    path: str
    captions: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Pictures:
    """One page of a collection.

    Attributes:
        shown: Its images.
        page: Number of this page.
        pages: Number of pages.
        found: Images that were found in all.
        images: Images of the collection.
        captioned: Of those, how many have captions.
        unusable: The first inputs that cannot be used: path, status, reason.
        unusable_in_all: How many there are.
    """

    shown: tuple[Shown, ...]
    page: int
    pages: int
    found: int
    images: int
    captioned: int
    unusable: tuple[tuple[str, str, str], ...]
    unusable_in_all: int


def pictures_of(
    profile: Profile, name: str, words: str, page: int, size: int, kind: CaptionKind = "ensemble"
) -> Pictures:
    """A page of a collection's images, by path.

    Args:
        profile: Root, and the captioner whose captions are shown.
        name: The collection.
        words: Words that one caption, or the path, contains, each of them, in any case.
        page: From 1; a page behind the last is the last one.
        size: Images of a page.
        kind: Which captions; where the profile made none, those of the root's largest table.

    Raises:
        UnknownCollection: no collection has the name.
    """
    rows = _rows(profile, name, kind)
    wanted = rows.images
    for word in words.lower().split():
        wanted = wanted.filter(pl.col("words").str.contains(word, literal=True))
    pages = max(1, -(-wanted.height // size))
    page = min(page, pages)
    return _page(rows, wanted.slice(size * (page - 1), size), page, pages, wanted.height)


def pictures_by_id(
    profile: Profile, name: str, image_ids: Sequence[str], kind: CaptionKind = "ensemble"
) -> Pictures:
    """One page of some images of a collection, in the order of their ids.

    Raises:
        UnknownCollection: no collection has the name.
    """
    rows = _rows(profile, name, kind)
    wanted = pl.DataFrame({"image_id": list(image_ids)}, schema={"image_id": pl.String})
    own = wanted.join(rows.images, on="image_id", how="inner", maintain_order="left")
    return _page(rows, own, 1, 1, own.height)


def _page(rows: _Rows, shown: pl.DataFrame, page: int, pages: int, found: int) -> Pictures:
    return Pictures(
        shown=tuple(map(_shown, shown.iter_rows(named=True))),
        page=page,
        pages=pages,
        found=found,
        images=rows.images.height,
        captioned=rows.images.height - rows.images["captions"].null_count(),
        unusable=tuple(rows.unusable.select("path", "status", "reason").head(UNUSABLE).iter_rows()),
        unusable_in_all=rows.unusable.height,
    )


def _shown(row: Mapping[str, Any]) -> Shown:
    captions = tuple(row["captions"] or ())
    return Shown(row["image_id"], row["path"], captions, row["reason"] or "")


@dataclass(frozen=True)
class _Rows:
    """Images with their captions and the words that are looked through; unusable inputs."""

    images: pl.DataFrame
    unusable: pl.DataFrame


def _captions(profile: Profile, name: str, kind: CaptionKind) -> Table | None:
    """The profile's captions, or else the root's largest table of captions of images."""
    location = Location(profile.root)
    known = list_tables(location, ["captions"])
    own = caption_stage(profile, name, kind).spec_key
    usable = [each for each in known if each.rows and each.spec.get("of") != "queries"]
    usable.sort(key=lambda each: (each.spec_key == own, each.rows))
    return load_table(location, "captions", usable[-1].spec_key) if usable else None


def _rows(profile: Profile, name: str, kind: CaptionKind) -> _Rows:
    collection = Collection.open(Location(profile.root), name)
    captions = _captions(profile, name, kind)
    key, state = (captions.spec_key, captions.state()) if captions else ("", "")
    return _read(profile.root, name, collection.listing, key, state)


@functools.lru_cache(maxsize=4)
def _read(root: str, name: str, listing: str, captions: str, state: str) -> _Rows:
    """Read once as long as neither the listing nor the captions change."""
    collection = Collection.open(Location(root), name)
    inputs = collection.rows().select("path", "image_id", "status", "reason")
    good = inputs.filter(pl.col("status") == OK).unique("image_id", keep="first")
    images = good.select("image_id", "path").sort("path")
    if captions:
        table = load_table(Location(root), "captions", captions)
        said = table.read(["captions", "status", "reason"], images["image_id"].to_list())
        said = said.with_columns(
            pl.when(pl.col("status") == OK).then(pl.col("captions")).otherwise(None)
        ).select("image_id", "captions", "reason")
        images = images.join(said, on="image_id", how="left", validate="1:1")
    else:
        texts, text = pl.List(pl.String), pl.String
        images = images.with_columns(
            pl.lit(None, texts).alias("captions"), pl.lit("", text).alias("reason")
        )
    looked_at = pl.concat_str(
        pl.col("captions").list.join("\n"), pl.col("path"), separator="\n", ignore_nulls=True
    )
    words = images.with_columns(looked_at.str.to_lowercase().alias("words")).sort("path")
    return _Rows(words, inputs.filter(pl.col("status") != OK).sort("path"))
