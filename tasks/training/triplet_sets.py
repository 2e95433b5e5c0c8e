"""A generated set of triplets: the small reference that training takes, and its triplets."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field, ValidationError

from models.settings import Settings, in_words
from models.spelling import agreed, counted
from models.triplets import AnnotatedTriplet, Triplet, triplet_id
from storage.collections.collection import Collection
from storage.locations.location import Entry, Location
from storage.tables.keys import content_key
from storage.tables.schemas import OK
from storage.tables.table import IncompleteTable, Table, load_table
from tasks.stages.image_sets import StoredImages

_COLUMNS = tuple(Triplet.__dataclass_fields__)


class TripletSet(Settings):
    """The triplets among the first `count` pairs of a table.

    Sets of one table are nested: fewer pairs are the beginning of more. So are their training
    parts, and all sets with room for it hold out the same validation triplets, so that networks
    trained on sets of different sizes are judged by one set.
    """

    root: str
    """Root of the tables, local or s3://."""
    spec_key: str
    """Key of the triplets table."""
    collections: tuple[str, ...] = Field(min_length=1)
    """Collections that the images lie in."""
    count: int = Field(ge=1)
    """Pairs taken from the beginning of the sample."""
    joined: int = Field(default=0, ge=0)
    """Further training triplets, each joined of two; see `joined_triplets`."""

    def first(self, count: int) -> TripletSet:
        """The set of the first pairs only.

        Raises:
            ValueError: this set has fewer.
        """
        if not 1 <= count <= self.count:
            asked = counted(count, "pair")
            raise ValueError(f"{asked} of a set of {self.count:,}: take 1 to all of them")
        return self.model_copy(update={"count": count})

    def table(self) -> Table:
        """The triplets table.

        Raises:
            UnknownTable: there is none of that key.
        """
        return load_table(Location(self.root), "triplets", self.spec_key)

    def triplets(self) -> tuple[Triplet, ...]:
        """All triplets of the set, in the order in which their pairs were drawn.

        Raises:
            IncompleteTable: pairs of the set were not made yet.
        """
        table = self.table()
        annotated = "benchmark" in table.spec
        names = list(dict.fromkeys([*_COLUMNS, "status", *(["raw"] if annotated else [])]))
        rows = table.read(names).filter(pl.col("position") < self.count).sort("position")
        if len(rows) != self.count:
            raise IncompleteTable(
                f"triplets/{self.spec_key} holds {len(rows):,} of the first "
                f"{counted(self.count, 'pair')}; run generate-triplets again, it makes only what "
                "is missing"
            )
        good = rows.filter(pl.col("status") == OK)
        if annotated:
            captions = [tuple((raw or "").split("\n")) for raw in good["raw"]]
            wanted = zip(good.select(_COLUMNS).iter_rows(), captions, strict=True)
            return tuple(AnnotatedTriplet(*(*row, own)) for row, own in wanted)
        return tuple(Triplet(*row) for row in good.select(_COLUMNS).iter_rows())

    def split(self, held_out: int) -> TripletSplit:
        """Training and validation triplets that have no image in common.

        The first `held_out` triplets validate, whatever the set's size; a later triplet trains
        unless it has an image of theirs, as reference or target.

        Raises:
            ValueError: nothing would be left to train on.
            IncompleteTable: pairs of the set were not made yet.
        """
        split = split_triplets(self.triplets(), held_out, self.joined)
        if not split.training:
            held = len(split.validation)
            raise ValueError(
                f"{counted(held, 'triplet')} held out for validation and {split.left_out:,} that "
                f"{agreed(split.left_out, 'shares', 'share')} images with "
                f"{agreed(held, 'it', 'them')} leave none to train on; hold out fewer, or "
                "generate more"
            )
        return split

    def images(self) -> Collection:
        """Where the images are read from: any of the collections, as all share one store.

        Raises:
            UnknownCollection: it is not there.
        """
        return Collection.open(Location(self.root), self.collections[0])


class TripletImages(StoredImages):
    """The images of a set of triplets."""

    triplets: TripletSet
    """The set."""

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"images of {counted(self.triplets.count, 'triplet')}"

    def ids(self, root: str) -> list[str]:
        """Sorted distinct image ids; the set knows its own root."""
        both = ((t.reference, t.target) for t in self.triplets.triplets())
        return sorted({image for pair in both for image in pair})

    def planned_keys(self, root: str) -> list[str]:
        """The ids."""
        return self.ids(root)

    def stored_at(self, root: str) -> Location:
        """Where the set's collections are: the set knows its own root."""
        return Location(self.triplets.root)


@dataclass(frozen=True)
class TripletSplit:
    """Triplets to train on, triplets to validate with, and how many are neither.

    Attributes:
        training: In the order of the sample, joined ones behind them.
        validation: In the order of the sample; no image of theirs is in `training`.
        left_out: Triplets that share an image with a validation triplet.
    """

    training: tuple[Triplet, ...]
    validation: tuple[Triplet, ...]
    left_out: int

    @functools.cached_property
    def content(self) -> str:
        """Key of everything that training depends on: images, texts and sides."""
        return content_key([_contents(self.training), _contents(self.validation)])

    def image_ids(self) -> list[str]:
        """Sorted distinct images of both sides."""
        both = (*self.training, *self.validation)
        return sorted({image for t in both for image in (t.reference, t.target)})


def split_triplets(triplets: Sequence[Triplet], held_out: int, joined: int = 0) -> TripletSplit:
    """The first `held_out` triplets, and the others that share no image with them.

    Args:
        triplets: In the order of the sample.
        held_out: How many validate.
        joined: How many are added to the training ones, made of two of these.

    Raises:
        ValueError: fewer can be joined than are asked for.
    """
    if held_out < 0:
        raise ValueError(f"held_out must not be negative, not {held_out}")
    validation = tuple(triplets[:held_out])
    kept_back = {image for t in validation for image in (t.reference, t.target)}
    rest = triplets[held_out:]
    training = tuple(t for t in rest if not kept_back & {t.reference, t.target})
    left_out = len(rest) - len(training)
    return TripletSplit((*training, *joined_triplets(training, joined)), validation, left_out)


def joined_triplets(triplets: Sequence[Triplet], count: int) -> list[Triplet]:
    """Triplets from the reference of one to the target of the next, with both texts.

    Where one triplet's target is another's reference, "A and B" leads from the first's reference
    to the second's target, as FashionIQ's queries join two captions. No text is generated for
    them. Fewer are the beginning of more; pairs that have a triplet already are left out.

    Raises:
        ValueError: there are fewer than `count`.
    """
    if not count:
        return []
    following: dict[str, list[Triplet]] = {}
    for each in triplets:
        following.setdefault(each.reference, []).append(each)
    known = {triplet.triplet_id for triplet in triplets}
    made: dict[str, tuple[Triplet, Triplet]] = {}
    for first in triplets:
        for second in following.get(first.target, ()):
            name = triplet_id(first.reference, second.target)
            if second.target != first.reference and name not in known:
                made.setdefault(name, (first, second))
    if len(made) < count:
        raise ValueError(
            f"joined={count}: of the {counted(len(triplets), 'training triplet')} at most "
            f"{len(made):,} can be joined; ask for no more, or train on more triplets (a larger "
            "n, or more from generate-triplets)"
        )
    start = 1 + max(triplet.position for triplet in triplets)
    return [
        _joined(*made[name], position=start + place)
        for place, name in enumerate(sorted(made)[:count])
    ]


def _joined(first: Triplet, second: Triplet, position: int) -> Triplet:
    return Triplet(
        triplet_id=triplet_id(first.reference, second.target),
        position=position,
        reference=first.reference,
        target=second.target,
        source=first.source,
        meta_class=first.meta_class,
        reference_caption=first.reference_caption,
        target_caption=second.target_caption,
        text=f"{first.text} and {second.text}",
    )


def planned_split(triplets: TripletSet, validation: int, content: str) -> TripletSplit:
    """Training and validation triplets, at most a tenth of all of these.

    Args:
        triplets: The set.
        validation: Triplets held out at most.
        content: `TripletSplit.content` when the training was planned; empty: it is now.

    Raises:
        ValueError: there are none, or the table has changed since the training was planned.
    """
    split = _split(triplets, validation, tuple(triplets.table().parts()))
    if content not in ("", split.content):
        raise ValueError(
            f"triplets/{triplets.spec_key} has changed since this training was planned; "
            "start it again to train on the present table"
        )
    return split


@functools.lru_cache(maxsize=2)
def _split(triplets: TripletSet, validation: int, parts: tuple[Entry, ...]) -> TripletSplit:
    """The split of a table's parts; they are there so that a table that grew is read again."""
    rows = triplets.triplets()
    if not rows:
        raise ValueError(
            f"none of the {triplets.count} {agreed(triplets.count, 'pair')} of "
            f"triplets/{triplets.spec_key} has a text; see the quality report of "
            "generate-triplets for the reasons"
        )
    return split_triplets(rows, min(validation, len(rows) // 10), triplets.joined)


def _contents(triplets: Sequence[Triplet]) -> list[tuple[str, str]]:
    return [(t.triplet_id, t.text) for t in triplets]


def parse_triplet_set(given: str | Mapping[str, Any]) -> TripletSet:
    """A set from its JSON value, or from the file `triplets.json` that generation wrote.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(given, str):
        return TripletSet.model_validate(given)
    path = Path(given)
    if not path.is_file():
        raise ValueError(f"{given}: no such file; generate-triplets writes triplets.json")
    try:
        return TripletSet.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        why = in_words(error) if isinstance(error, ValidationError) else str(error)
        raise ValueError(
            f"{given} is not a reference to triplets ({why.replace(chr(10), '; ')}); give the "
            "triplets.json of generate-triplets, or the file that `cirflow import triplets` wrote"
        ) from error
