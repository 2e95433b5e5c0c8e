"""InstructPix2Pix + CLIP: the feature of a query is that of its edited picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from models.encoders.spec import EncoderSpec
from storage.tables.schemas import OK
from tasks.engines import encoder_dim, encoder_fingerprint, load_encoder
from tasks.settings import PictureSettings
from tasks.stages.decoded import Decoding
from tasks.stages.edited_pictures import EditedPictureStage
from tasks.stages.stage import Stage, Tick

if TYPE_CHECKING:
    from PIL import Image

    from models.protocols import FloatArray


class EditedQueryStage(Stage):
    """Un-normalised image features of the queries' edited pictures; the text is not used again."""

    table_name: ClassVar[str] = "query_features"
    producer: ClassVar[str] = "cirflow/edited_queries/1"

    feature: str
    edited: EditedPictureStage
    encoder: EncoderSpec
    pictures: PictureSettings = PictureSettings()

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"{self.feature} of {self.edited.queries.collection_name} queries"

    def identity(self) -> dict[str, Any]:
        """Encoder and pictures."""
        return {
            "feature": self.feature,
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "upstream": {name: stage.spec_key for name, stage in self.inputs.items()},
            "dim": encoder_dim(self.encoder),
            "dtype": "float32",
            **self.pictures.identity,
        }

    def planned(self) -> list[str]:
        """Content keys of the queries."""
        return sorted(self.edited.queries.items(self.root))

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Encode the members' pictures; the row of a query without one says why."""
        items = self.edited.queries.items(self.root)
        edit_of = {member: self.edited.key_of(items[member]) for member in members}
        wanted = list(dict.fromkeys(edit_of.values()))
        vectors: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        # A part at a time: pictures are large.
        for part in self.edited.table().iter_parts(["data", "status", "reason"], wanted):
            good = [row for row in part.iter_rows(named=True) if row["status"] == OK]
            data = [row["data"] for row in good]
            encoder = load_encoder(self.encoder) if good else None
            side = encoder.preprocess.side if encoder else None
            images = Decoding(data, lambda count: None, self.pictures, side)
            made = encoder.encode_images(images, self.pictures.threads) if encoder else ()
            vectors |= {row["edit_key"]: v for row, v in zip(good, made, strict=True)}
            reasons |= {
                row["edit_key"]: f"no edited picture: {row['status']} ({row['reason']})"
                for row in part.iter_rows(named=True)
                if row["status"] != OK
            }
            problems = zip(good, images.statuses, images.reasons, strict=True)
            reasons |= {row["edit_key"]: why for row, status, why in problems if status != OK}
        tick(len(members))
        why = [reasons.get(edit_of[member], "") for member in members]
        return self.table().rows(
            query_key=list(members),
            vector=[None if r else vectors[edit_of[m]] for m, r in zip(members, why, strict=True)],
            status=["missing_input" if reason else OK for reason in why],
            reason=why,
        )

    def of_picture(self, reference: Image.Image) -> FloatArray:
        """The feature (1, d) of one picture, which is edited for it.

        Raises:
            ValueError: it could not be edited (with the reason), or its editor edits nothing here.
        """
        (item,) = self.edited.queries.items("").values()
        reply = self.edited.edit_one(item, reference)
        if reply.picture is None:
            raise ValueError(f"the image could not be edited: {reply.status} ({reply.reason})")
        return load_encoder(self.encoder).encode_images([reply.picture])
