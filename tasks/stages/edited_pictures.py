"""Reference images edited as their queries' texts ask; equal edits are made once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from PIL import Image

from models.captioners.seeds import stream_seed
from models.editors.imported import ImportedPictures
from models.editors.settings import EditorSettings
from models.protocols import EditReply, EditRequest
from storage.collections.decoding import ImageProblem, encode_png
from storage.exchange.edited_pictures import edit_key, making_json
from storage.tables.keys import sha256_hex
from storage.tables.schemas import OK
from tasks.engines import editor_fingerprint, load_editor
from tasks.imported_pictures import ABSENT, PRODUCER, TABLE, pictures_spec, require_import
from tasks.query_sets import Queries, QueryItem
from tasks.settings import PictureSettings
from tasks.stages.decoded import picture
from tasks.stages.image_sets import ImageSet
from tasks.stages.stage import Stage, Tick


class EditedPictureStage(Stage):
    """Edited reference images. A query is edited by its first reading ("c1 and c2")."""

    table_name: ClassVar[str] = TABLE
    producer: ClassVar[str] = PRODUCER

    queries: Queries
    editor: EditorSettings
    pictures: PictureSettings = PictureSettings()

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"edited pictures of {self.queries.collection_name}"

    def identity(self) -> dict[str, Any]:
        """The editor, and the reading of references; imported pictures were edited without it."""
        own = pictures_spec(editor_fingerprint(self.editor))
        del own["producer"]
        imported = isinstance(self.editor, ImportedPictures)
        return own if imported else {**own, **self.pictures.of_engine(self.editor).identity}

    def planned(self) -> list[str]:
        """Keys of the edits."""
        return sorted(self.edits())

    def edits(self) -> dict[str, QueryItem]:
        """Every distinct edit of the queries, by key."""
        items = self.queries.items(self.root).values()
        return {self.key_of(item): item for item in items}

    @staticmethod
    def key_of(item: QueryItem) -> str:
        """The key of a query's edit."""
        return edit_key(item.image_id, item.texts[0])

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Edit the members; a failure of one image is its row's status."""
        if isinstance(self.editor, ImportedPictures):
            return self._absent(members, tick)
        by_key = self.edits()
        requests, replies = [], dict[str, EditReply]()
        items = {member: by_key[member] for member in members}
        references = ImageSet(collection=self.queries.collection_name)
        data = dict(references.read(self.root, sorted({i.image_id for i in items.values()})))
        for key, item in items.items():
            try:
                image = picture(data[item.image_id], self.pictures, self.editor.picture_side)
            except ImageProblem as problem:
                replies[key] = EditReply(key, None, problem.status, problem.reason)
            else:
                requests.append(self._request(key, item, image))
        for reply in load_editor(self.editor).edit(requests) if requests else ():
            replies[reply.key] = reply
            tick(1)
        return self._made(items, replies)

    def edit_one(self, item: QueryItem, reference: Image.Image) -> EditReply:
        """The edit of one reference image, which is not stored.

        Raises:
            EngineUnavailable: pictures are imported.
        """
        request = self._request(self.key_of(item), item, reference)
        return next(iter(load_editor(self.editor).edit([request])))

    def _request(self, key: str, item: QueryItem, image: Image.Image) -> EditRequest:
        return EditRequest(key, image, item.texts[0], self.seed_of(item))

    def made(self, items: Sequence[QueryItem]) -> dict[str, bytes]:
        """Query key -> file of its edited picture, of some queries that have one."""
        edits = {item.key: self.key_of(item) for item in items}
        found: dict[str, bytes] = {}
        for part in self.table().iter_parts(["data", "status"], list(edits.values())):
            found |= {key: data for key, data, status in part.iter_rows() if status == OK}
        return {key: found[edit] for key, edit in edits.items() if edit in found}

    def seed_of(self, item: QueryItem) -> int:
        """The seed of an edit's noise: of the table's, the reference image and the text."""
        own = 0 if isinstance(self.editor, ImportedPictures) else self.editor.seed
        return stream_seed("edit", own, item.image_id, item.texts[0]) & (2**63 - 1)

    def _made(self, items: dict[str, QueryItem], replies: dict[str, EditReply]) -> pa.Table:
        made = [replies[key].picture for key in items]
        files = [encode_png(each) if each else None for each in made]
        common = self.editor.making
        return self.table().rows(
            edit_key=list(items),
            reference=[item.image_id for item in items.values()],
            text=[item.texts[0] for item in items.values()],
            data=files,
            picture_id=[sha256_hex(file) if file else None for file in files],
            making=[making_json({**common, "seed": self.seed_of(item)}) for item in items.values()],
            status=[replies[key].status for key in items],
            reason=[replies[key].reason for key in items],
        )

    def _absent(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Rows of edits that an import lacks: what it holds lies in this table already."""
        assert isinstance(self.editor, ImportedPictures)
        require_import(self.root, self.editor.pictures)
        by_key = self.edits()
        tick(len(members))
        return self.table().rows(
            edit_key=list(members),
            reference=[by_key[member].image_id for member in members],
            text=[by_key[member].texts[0] for member in members],
            status=[ABSENT] * len(members),
            reason=["the import holds no picture of this reference and text"] * len(members),
        )
