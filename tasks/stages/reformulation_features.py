"""Features by trained networks: queries of image and text, and gallery images of the same space.

InstructCIR's reformulation network and every composed query encoder make theirs here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from models.instructcir.query_forms import QueryForm
from models.retrieval.methods import METHODS
from tasks.networks import (
    encode_gallery,
    encode_queries,
    features_identity,
    network_facts,
    picture_side,
    query_form,
)
from tasks.settings import PictureSettings, ReformulationSettings
from tasks.stages.decoded import Decoding
from tasks.stages.over_images import ImageStage
from tasks.stages.over_queries import QueryStage
from tasks.stages.stage import Stage, Tick


class ReformulatedImageStage(ImageStage):
    """Un-normalised vectors of images without a text: InstructCIR's by the EMA branch."""

    table_name: ClassVar[str] = "image_features"
    producer: ClassVar[str] = "cirflow/reformulated_images/1"

    network: ReformulationSettings

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"{self.title_of_network} features of {self.images.title}"

    @property
    def title_of_network(self) -> str:
        """The system's name for people."""
        name = network_facts(self.network.checkpoint).system
        return METHODS[name].title

    def identity(self) -> dict[str, Any]:
        """The network; its files are read for it, but no weights are loaded."""
        return {
            "network": features_identity(self.network, "ema"),
            "dim": network_facts(self.network.checkpoint).dim,
            "dtype": "float32",
            **self.pictures.identity,
        }

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Encode the members; an image that does not decode is a row with its status."""
        data = dict(self.images.read(self.root, members))
        side = picture_side(self.network)
        images = Decoding([data[m] for m in members], tick, self.pictures, side)
        vectors = encode_gallery(self.network, images, self.pictures.threads)
        return self.table().rows(
            image_id=list(members), vector=vectors, status=images.statuses, reason=images.reasons
        )


class ReformulatedQueryStage(QueryStage):
    """One of a network's query features for a benchmark's queries, un-normalised.

    A query's text is its first reading: for FashionIQ "caption one and caption two".
    """

    producer: ClassVar[str] = "cirflow/reformulated_queries/1"

    feature: str
    network: ReformulationSettings
    pictures: PictureSettings = PictureSettings()

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"{self.feature} of {self.queries.collection_name} queries"

    @property
    def form(self) -> QueryForm:
        """Branch and combiner; the combiner only if the checkpoint has one."""
        return query_form(self.network, self.feature)

    def identity(self) -> dict[str, Any]:
        """Network, branch and combiner; features that agree in these share a table."""
        return {
            "network": features_identity(self.network, self.form.branch),
            "combined": self.form.combined,
            "dim": network_facts(self.network.checkpoint).dim,
            "dtype": "float32",
            **self.pictures.identity,
        }

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Encode the members; a query whose image does not decode is a row with its status."""
        items = self.items_of(members)
        side = picture_side(self.network)
        images = Decoding(self.files_of(items), tick, self.pictures, side)
        texts, keys = [item.texts[0] for item in items], [item.image_id for item in items]
        vectors = encode_queries(
            self.network, self.form, images, texts, keys, self.pictures.threads
        )
        return self.table().rows(
            query_key=list(members), vector=vectors, status=images.statuses, reason=images.reasons
        )


def network_behind(features: Iterable[Stage]) -> ReformulationSettings | None:
    """The network that encodes a method's queries; None where none of its features is one's."""
    return next(
        (each.network for each in features if isinstance(each, ReformulatedQueryStage)), None
    )
