"""What the trainings on triplets are asked alike, and the triplets that a parameter names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from flows.form_fields import Values
from flows.requests.checks import require_root
from tasks.settings import Profile
from tasks.training.run_settings import RunSettings

if TYPE_CHECKING:
    from tasks.training.triplet_sets import TripletSet

First = Annotated[int, Field(ge=1)] | None
"""Pairs of the sample that are used, the first ones; None: all."""
Joined = Annotated[int, Field(ge=0)]
"""Triplets that are added, each made of two."""


@dataclass(frozen=True)
class TripletRequest:
    """A network to train on triplets.

    Attributes:
        profile: Backbone and where the network is published.
        triplets: The triplets.
        run: Hardware and pace.
        not_zero_shot: Why its results must not be called zero-shot; empty where they may be.
        notes: Further facts for the model card.
    """

    profile: Profile
    triplets: TripletSet
    run: RunSettings
    not_zero_shot: str
    notes: Values


def triplet_set_of(
    given: str | Values, profile: Profile | None = None, n: int | None = None, joined: int = 0
) -> TripletSet:
    """The set that a file, its content or a benchmark's train split names.

    Args:
        given: A file, its content, or BENCHMARK:SPLIT:FOLDER.
        profile: Where the images of a split are ingested; None where only files are taken.
        n: Pairs of the sample, the first ones; None: all.
        joined: Triplets that are added, made of two; 0: as many as the reference says.

    Raises:
        ValueError: the file is missing, it is not a reference to triplets, the images of the
            split are not ingested, or `joined` is negative.
    """
    if joined < 0:
        raise ValueError(f"joined: a number of triplets is 0 or more, not {joined}")
    found = _found(given, profile)
    found = found if n is None else found.first(n)
    return found.model_copy(update={"joined": joined}) if joined else found


def _found(given: str | Values, profile: Profile | None) -> TripletSet:
    """The whole set."""
    if isinstance(given, str) and not Path(given).is_file():
        from tasks.training.annotated_triplets import annotated_triplets, parse_split

        if profile is not None and (ref := parse_split(given)) is not None:
            require_root(profile)
            return annotated_triplets(profile.root, ref, profile.allow_missing_images)
        splits = ", or name a train split as BENCHMARK:train:FOLDER" if profile else ""
        raise ValueError(f"{given}: no such file; generate-triplets writes triplets.json{splits}")
    from tasks.training.triplet_sets import parse_triplet_set  # brings the reader of tables

    return parse_triplet_set(given)
