"""Vectors of an embedding model: queries of image and text, and gallery images alone.

A query's identity holds the model and the instruction; a gallery's holds the model alone, so that
another instruction makes queries only. Whether a benchmark's text holds more than the modification
(CIRCO's shared concept) is a choice of its reading, and part of each query's key.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from models.ahead import in_order, worker_threads
from models.embedders.protocol import ComposedQuery, Embedded
from storage.tables.schemas import OK
from tasks.engines import embedder_facts, load_embedder
from tasks.settings import EmbedderSettings, PictureSettings
from tasks.stages.decoded import Decoding
from tasks.stages.over_images import ImageStage
from tasks.stages.over_queries import QueryStage
from tasks.stages.stage import Tick

if TYPE_CHECKING:
    from PIL import Image

    from models.protocols import FloatArray


class EmbeddedImageStage(ImageStage):
    """Un-normalised vectors of images without a text."""

    table_name: ClassVar[str] = "image_features"
    producer: ClassVar[str] = "cirflow/embedded_images/1"

    embedder: EmbedderSettings

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"{self.embedder.title} features of {self.images.title}"

    def identity(self) -> dict[str, Any]:
        """The model; its files are read for it, but no weights are loaded."""
        fingerprint, dim = embedder_facts(self.embedder)
        return {
            "embedder": dict(fingerprint),
            "dim": dim,
            "dtype": "float32",
            **self.pictures.identity,
        }

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Embed the members; an image that gives no vector is a row with its status."""
        data = dict(self.images.read(self.root, members))
        images = Decoding([data[m] for m in members], tick, self.pictures, None)
        with closing(_ahead(images, self.pictures)) as shown:
            made = load_embedder(self.embedder).encode_targets(shown)
        status, reason = _outcomes(images, made)
        return self.table().rows(
            image_id=list(members), vector=made.vectors, status=status, reason=reason
        )


class EmbeddedQueryStage(QueryStage):
    """Un-normalised vectors of a benchmark's queries.

    A query's text is its first reading: for FashionIQ "caption one and caption two".
    """

    producer: ClassVar[str] = "cirflow/embedded_queries/1"

    embedder: EmbedderSettings
    pictures: PictureSettings = PictureSettings()

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"{self.embedder.title} of {self.queries.collection_name} queries"

    def identity(self) -> dict[str, Any]:
        """The model and the instruction."""
        fingerprint, dim = embedder_facts(self.embedder)
        return {
            "embedder": dict(fingerprint),
            "instruction": self.embedder.asked,
            "dim": dim,
            "dtype": "float32",
            **self.pictures.identity,
        }

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Embed the members; a query that gives no vector is a row with its status."""
        items = self.items_of(members)
        images = Decoding(self.files_of(items), tick, self.pictures, None)
        texts = [item.texts[0] for item in items]
        with closing(_ahead(images, self.pictures)) as shown:
            made = load_embedder(self.embedder).encode_composed(
                _composed(shown, texts), self.embedder.asked
            )
        status, reason = _outcomes(images, made)
        return self.table().rows(
            query_key=list(members), vector=made.vectors, status=status, reason=reason
        )

    def of_picture(self, reference: Image.Image, text: str) -> FloatArray:
        """The vector (1, d) of one query.

        Raises:
            ValueError: It has none, with the reason.
        """
        query = ComposedQuery((reference,), text)
        made = load_embedder(self.embedder).encode_composed([query], self.embedder.asked)
        if made.reasons[0]:
            raise ValueError(f"the query could not be embedded: {made.reasons[0]}")
        return made.vectors


def _composed(shown: Iterator[Image.Image], texts: Sequence[str]) -> Iterator[ComposedQuery]:
    for picture, text in zip(shown, texts, strict=True):
        yield ComposedQuery((picture,), text)


def _ahead(images: Decoding, pictures: PictureSettings) -> Generator[Image.Image, None, None]:
    """Pictures in their order, decoded in threads a few ahead of the model."""
    threads = worker_threads(pictures.threads)
    return in_order(images.__getitem__, range(len(images)), threads, ahead=threads + 1)


def _outcomes(images: Decoding, made: Embedded) -> tuple[list[str], list[str]]:
    """Status and reason of each row: a picture's problem comes before the model's."""
    both = list(zip(images.statuses, images.reasons, made.reasons, strict=True))
    status = [own if own != OK else "engine_error" if why else OK for own, _, why in both]
    return status, [said if own != OK else why for own, said, why in both]
