"""What stages with a vector for each query of a benchmark share: their keys, and what is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tasks.query_sets import Queries, QueryItem
from tasks.stages.image_sets import ImageSet
from tasks.stages.stage import Stage


class QueryStage(Stage):
    """A table of a vector of every query."""

    table_name: ClassVar[str] = "query_features"

    queries: Queries

    def planned(self) -> list[str]:
        """Content keys of the queries."""
        return sorted(self.queries.items(self.root))

    def items_of(self, members: Sequence[str]) -> list[QueryItem]:
        """The queries of some keys, in their order."""
        by_key = self.queries.items(self.root)
        return [by_key[member] for member in members]

    def files_of(self, items: Sequence[QueryItem]) -> list[bytes]:
        """The files of queries' reference images; each is read once."""
        references = ImageSet(collection=self.queries.collection_name)
        data = dict(references.read(self.root, sorted({item.image_id for item in items})))
        return [data[item.image_id] for item in items]
