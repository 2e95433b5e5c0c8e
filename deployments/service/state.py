"""What the routers share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, Request

from deployments.service.errors import Refusal
from deployments.service.metrics import Metrics
from deployments.service.rate import Rate
from deployments.service.settings import ServiceSettings
from deployments.service.uploads import Pictures
from deployments.service.warming import Warming
from models.spelling import unknown
from models.user_cache import user_cache_folder
from storage.collections.decoding import MAX_PIXELS, inspect_image
from storage.collections.known import list_collections
from storage.collections.reading import read_pictures
from storage.collections.thumbnails import kept_thumbnail, thumbnail
from storage.locations.location import Location
from storage.tables.plans import IncompleteTable
from tasks.kept_searches import Kept
from tasks.settings import Profile

if TYPE_CHECKING:
    from storage.collections.decoding import ImageFacts

DECODING: Final = 2
"""Pictures that are decoded at a time: each may take hundreds of megabytes for a moment."""
KEPT_VALUES: Final = 2048
"""Values of queries that are kept: a few vectors and texts for each."""
FRESH_S: Final = 10.0
"""Seconds after which a gallery is looked at again."""


@dataclass(frozen=True)
class Service:
    """The running service.

    Attributes:
        settings: Where it listens and what it allows.
        metrics: Counts and times of its requests.
        kept: Encodings of queries and open galleries.
        pictures: Pictures that were uploaded or read lately.
        rate: How often a client may search.
        warming: Whether galleries and models are ready.
        decoding: Holds back pictures while others are decoded.
    """

    settings: ServiceSettings
    metrics: Metrics
    kept: Kept
    pictures: Pictures
    rate: Rate
    warming: Warming
    decoding: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(DECODING))

    @property
    def profile(self) -> Profile:
        """Models and settings."""
        return self.settings.profile

    @property
    def root(self) -> str:
        """Root of the tables."""
        return self.profile.root

    def galleries(self) -> list[str]:
        """Names of the collections of the root."""
        return list_collections(Location(self.root))

    def require_gallery(self, name: str) -> None:
        """Refuse a name that no collection has.

        Raises:
            Refusal: with the nearest name.
        """
        known = self.galleries()
        if name not in known:
            raise Refusal(404, "unknown_gallery", unknown("gallery", name, known))

    def picture(self, image_id: str) -> bytes:
        """The bytes of a picture: an uploaded one, or one of the root.

        Raises:
            Refusal: there is none of this id.
        """
        if (held := self.pictures.get(image_id)) is not None:
            return held
        try:
            ((_, data),) = read_pictures(Location(self.root), [image_id])
        except IncompleteTable as error:
            raise Refusal(
                404,
                "unknown_image",
                f"no picture has the id {image_id}: give one of a hit or of an upload; uploads are "
                "kept for a while, so upload it again",
            ) from error
        self.pictures.add(data)
        return data

    def inspected(self, data: bytes, max_pixels: int = MAX_PIXELS) -> ImageFacts:
        """What a picture is; it is decoded whole, so not on the event loop.

        Raises:
            ImageProblem: it is not a picture, or has too many pixels.
        """
        with self.decoding:
            return inspect_image(data, max_pixels)

    def thumbnail(self, image_id: str, side: int) -> bytes:
        """A picture as a JPEG of at most `side` pixels, made once for pictures of the root.

        Raises:
            Refusal: there is none of this id.
            ImageProblem: its bytes give no image.
        """

        def make() -> bytes:
            data = self.picture(image_id)
            with self.decoding:
                return thumbnail(data, side)

        try:
            folder: Path | None = user_cache_folder() / "thumbnails"
        except RuntimeError:  # the user has no home folder
            folder = None
        if folder is None or self.pictures.get(image_id) is not None:
            return make()
        return kept_thumbnail(folder, image_id, side, make)


def new_service(settings: ServiceSettings) -> Service:
    """The service of some settings; no model is loaded yet."""
    limits = settings.limits
    kept = Kept(most=KEPT_VALUES, fresh_s=FRESH_S)
    metrics = Metrics(kept)
    rate = Rate(limits.rate, limits.burst)
    return Service(settings, metrics, kept, Pictures(limits.uploads), rate, Warming())


def service_of(request: Request) -> Service:
    """The service that answers a request."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


Serving = Annotated[Service, Depends(service_of)]
"""Type of a route's parameter that is given the service."""
