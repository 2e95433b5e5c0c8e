"""Caption ensembles: N captions of every image (CVSI, equations 3 and 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl
import pyarrow as pa

from models.imported_texts import ImportedCaptions
from models.protocols import CaptionReply, CaptionSampling, require_engine
from storage.collections.decoding import ImageProblem
from storage.tables.plans import Keys
from storage.tables.schemas import OK
from tasks.engines import captioner_fingerprint, load_captioner
from tasks.imported_texts import captions_imported, imported_sampling
from tasks.query_sets import QueryItem
from tasks.settings import CaptionerSettings, PictureSettings
from tasks.stages.decoded import decoded
from tasks.stages.image_sets import ImageSet, SelectedImages
from tasks.stages.pair_samples import PairSample
from tasks.stages.query_pairs import QueryPairs
from tasks.stages.stage import Stage, Tick
from tasks.stages.streams import ask

if TYPE_CHECKING:
    from PIL import Image


class CaptionStage(Stage):
    """Captions of a set of images. They do not depend on the CLIP backbone or the benchmark."""

    table_name: ClassVar[str] = "captions"
    producer: ClassVar[str] = "cirflow/captions/1"
    streams: ClassVar[bool] = True

    images: ImageSet | PairSample | SelectedImages | QueryPairs
    captioner: CaptionerSettings
    sampling: CaptionSampling
    pictures: PictureSettings = PictureSettings()

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        kind = "captions" if self.sampling.n > 1 else "single captions"
        return f"{kind} of {self.images.title}"

    def identity(self) -> dict[str, Any]:
        """Captioner, sampling and reading of files."""
        if isinstance(self.captioner, ImportedCaptions):
            return {
                "captioner": dict(captioner_fingerprint(self.captioner)),
                "sampling": imported_sampling(self.sampling),
                "of": "queries" if self.of_queries else "images",
            }
        return {
            "captioner": dict(captioner_fingerprint(self.captioner)),
            "sampling": dict(self.sampling.fingerprint),
            **self.pictures.of_engine(self.captioner).identity,
        }

    @property
    def of_queries(self) -> bool:
        """Whether rows are about queries: imported captions of one reference may differ by query.

        The column `image_id` then holds the queries' content keys.
        """
        images = self.images
        imported = isinstance(self.captioner, ImportedCaptions)
        return imported and isinstance(images, ImageSet) and images.part == "references"

    def key_of(self, item: QueryItem) -> str:
        """The key of the row with a query's captions."""
        return item.key if self.of_queries else item.image_id

    def planned(self) -> Sequence[str]:
        """Image ids."""
        if self.of_queries and isinstance(self.images, ImageSet) and self.images.benchmark:
            return sorted(self.images.benchmark.items(self.root))
        return self.images.ids(self.root)

    def planned_keys(self) -> Keys:
        """The ids; as derived keys where they follow from a listing."""
        return self.planned() if self.of_queries else self.images.planned_keys(self.root)

    def read_order(self, keys: Sequence[str]) -> Sequence[str] | pl.Series:
        """The ids in the order in which the images are stored."""
        imported = isinstance(self.captioner, ImportedCaptions)
        return keys if imported else self.images.in_order(self.root, keys)

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Caption the members; a failure of one image is its row's status."""
        if isinstance(self.captioner, ImportedCaptions):
            found = captions_imported(
                self.root, self.captioner.texts, members, self.sampling, self.of_queries
            )
            tick(len(members))
            return caption_rows(self, members, found)
        problems: dict[str, ImageProblem] = {}
        side = self.captioner.picture_side if self.pictures.draft else None
        images = decoded(self.images.read(self.root, members), problems, self.pictures, side)
        replies: dict[str, CaptionReply] = {}
        with closing(images):
            for reply in ask(self._captioned, images, itemgetter(0)):
                replies[reply.key] = reply
                tick(1)
        require_engine(replies.values())
        for image_id, problem in problems.items():
            replies[image_id] = CaptionReply(image_id, (), problem.status, problem.reason)
        return caption_rows(self, members, replies)

    def _captioned(self, images: Iterator[tuple[str, Image.Image]]) -> Iterator[CaptionReply]:
        return load_captioner(self.captioner).caption(images, self.sampling)


def caption_rows(
    stage: CaptionStage, members: Sequence[str], replies: dict[str, CaptionReply]
) -> pa.Table:
    """Rows of the captions table, one per member."""
    ordered = [replies[m] for m in members]
    good = [reply.status == OK for reply in ordered]
    return stage.table().rows(
        image_id=list(members),
        captions=[list(r.captions) if ok else None for r, ok in zip(ordered, good, strict=True)],
        n=[len(r.captions) if ok else None for r, ok in zip(ordered, good, strict=True)],
        raw=[list(r.captions) for r in ordered],
        status=[r.status for r in ordered],
        reason=[r.reason for r in ordered],
    )
