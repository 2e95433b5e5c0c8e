"""The records of the search API."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from models.spelling import unknown

ImageId = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""sha256 of a picture's bytes, in hexadecimal."""


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("Input should be a number")
    return value


Number = Annotated[float, BeforeValidator(_no_boolean)]
"""true and false are refused, which pydantic reads as 1 and 0."""
Count = Annotated[int, BeforeValidator(_no_boolean)]


class Asked(BaseModel):
    """A part of a request; a field of no meaning is refused."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, given: Any) -> Any:
        for name in given if isinstance(given, dict) else ():
            if name not in cls.model_fields:
                raise ValueError(unknown("field", name, cls.model_fields))
        return given


class Sides(Asked):
    """Numbers by feature, of the query and of the gallery."""

    query: dict[str, Number] = {}
    gallery: dict[str, Number] = {}


class SearchRequest(Asked):
    """One composed query. The reference is a picture's id (of a hit or an upload), or its bytes."""

    gallery: str = Field(max_length=128)
    text: str = Field(min_length=1, max_length=2000, pattern=r"\S")
    image_id: ImageId | None = None
    image_base64: str | None = None
    method: str = Field("cvsi", max_length=128)
    family: str = Field("", max_length=128)
    weights: Sides = Sides()
    k: Count = Field(12, ge=1)
    include_reference: bool = False

    @model_validator(mode="after")
    def _one_reference(self) -> SearchRequest:
        if (self.image_id is None) == (self.image_base64 is None):
            raise ValueError("give the reference as image_id or as image_base64, one of the two")
        return self


class FoundImage(BaseModel):
    """A hit; each side of `contributions` sums to the similarity under the method's weights."""

    rank: int
    image_id: str
    name: str
    paths: list[str]
    score: float
    verdict: float | None
    contributions: Sides
    image: str
    thumbnail: str


class Texts(BaseModel):
    """The texts that were made for a query."""

    captions: list[str]
    edits: list[str]
    objects: str | None


class Approximate(BaseModel):
    """How near an approximate search came to the exact one."""

    recall: float
    at: int
    queries: int


class SearchAnswer(BaseModel):
    """The hits of one query, best first."""

    image_id: str
    gallery: str
    method: str
    hits: list[FoundImage]
    texts: Texts
    gallery_size: int
    without_features: int
    approximate: Approximate | None
    milliseconds: float


class BatchRequest(Asked):
    """Several queries."""

    searches: list[SearchRequest] = Field(min_length=1)


class BatchAnswer(BaseModel):
    """Their answers, in their order."""

    answers: list[SearchAnswer]


class Upload(BaseModel):
    """A picture that was uploaded."""

    image_id: str
    width: int
    height: int
    format: str


class GalleryFacts(BaseModel):
    """A collection, and the methods whose features it has under the service's profile.

    `warning` says where its pictures do not fit the profile's models, `fault` what is wrong with
    its files; empty where nothing is.
    """

    name: str
    images: int
    methods: list[str]
    warning: str
    fault: str


class Galleries(BaseModel):
    """All collections of the root."""

    galleries: list[GalleryFacts]


class MethodFacts(BaseModel):
    """A method; `weights` are those of a search. A method that does not run here says why."""

    name: str
    title: str
    group: str
    description: str
    ready: bool
    reason: str
    label: str
    weights: Sides
    movable: bool


class Methods(BaseModel):
    """All methods."""

    methods: list[MethodFacts]


class ImageFacts(BaseModel):
    """A picture of a gallery: its files, and the captions that were made of it."""

    image_id: str
    width: int
    height: int
    format: str
    paths: list[str]
    captions: list[str]
