"""A training example of InstructCIR: two images and the text that leads from one to the other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Triplet:
    """An example that the reformulation network learns from.

    Attributes:
        triplet_id: Identity of the ordered pair of images, see `triplet_id`.
        position: Place in the seeded sample of pairs, from 0; a prefix of a sample is a sample.
        reference: Image id of the reference.
        target: Image id of the target.
        source: Collection that the pair was drawn from.
        meta_class: Class that both images lie in; "" for pairs over a whole collection.
        reference_caption: Caption A, of the reference; "" where an imported set has none.
        target_caption: Caption B.
        text: The modification text.
    """

    triplet_id: str
    position: int
    reference: str
    target: str
    source: str
    meta_class: str
    reference_caption: str
    target_caption: str
    text: str


@dataclass(frozen=True, slots=True)
class AnnotatedTriplet(Triplet):
    """A triplet of a benchmark's annotated split.

    Attributes:
        captions: The annotators' captions, which `text` joins where there are two.
    """

    captions: tuple[str, ...] = ()


def readings_of(triplet: Triplet) -> tuple[str, ...]:
    """The texts that two captions make: both in either order, and each alone; else the one text."""
    if not isinstance(triplet, AnnotatedTriplet) or len(triplet.captions) != 2:
        return (triplet.text,)
    first, second = triplet.captions
    return f"{first} and {second}", f"{second} and {first}", first, second


@dataclass(frozen=True, slots=True)
class TripletRow:
    """The outcome of one pair: a triplet, or the reason for its absence.

    Attributes are those of `Triplet`, where a failed pair may lack captions and text, and:

    Attributes:
        attempts: How many answers the text generator was asked for.
        raw: Its last answer, as it came.
        status: `ok`, or the kind of failure.
        reason: Why, in words; empty when the status is `ok`.
    """

    triplet_id: str
    position: int
    reference: str
    target: str
    source: str
    meta_class: str
    reference_caption: str | None
    target_caption: str | None
    text: str | None
    attempts: int
    raw: str | None
    status: str
    reason: str


def triplet_id(reference: str, target: str) -> str:
    """The identity of an ordered pair of images: 20 hex digits of a sha256.

    A pair has one row in a table, whichever class or collection it was drawn from.
    """
    return hashlib.sha256(f"{reference}>{target}".encode()).hexdigest()[:20]
