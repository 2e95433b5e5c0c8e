"""The pairs of images behind a benchmark's queries: each reference with its annotated target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.instructcir.pairs import Pair
from models.triplets import triplet_id
from tasks.query_sets import BenchmarkRef, load_query_set
from tasks.stages.image_sets import StoredImages


class QueryPairs(StoredImages):
    """Reference and annotated target of every query whose images are both readable.

    It also stands for these images, so that exactly they are captioned.
    """

    benchmark: BenchmarkRef
    """A benchmark with public targets and its own texts."""

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"queries of {self.benchmark.collection_name}"

    def places(self, root: str) -> Mapping[str, tuple[int, Pair]]:
        """Triplet id -> place and pair. The place is 0: what a table holds is of no benchmark."""
        query_set = load_query_set(root, self.benchmark)
        ids, source = query_set.image_ids, self.benchmark.collection_name
        pairs = [
            Pair(ids[query.reference], ids[query.targets[0]], source, query.category)
            for query in query_set.benchmark.queries
            if query.reference in ids and query.targets and query.targets[0] in ids
        ]
        return {triplet_id(pair.reference, pair.target): (0, pair) for pair in pairs}

    def ids(self, root: str) -> list[str]:
        """Sorted distinct ids of the images."""
        pairs = [pair for _, pair in self.places(root).values()]
        return sorted({image for pair in pairs for image in (pair.reference, pair.target)})

    def planned_keys(self, root: str) -> list[str]:
        """The ids."""
        return self.ids(root)

    def identity(self, root: str) -> dict[str, Any]:
        """The rule: a pair has one text, whichever benchmark asks for it."""
        return {"of": "queries"}
