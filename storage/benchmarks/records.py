"""The records every benchmark becomes: queries, galleries, and the protocol they follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from storage.tables.keys import JsonValue


@dataclass(frozen=True, slots=True)
class Query:
    """One composed query: a reference image, a modification text, and the right answers.

    Attributes:
        query_id: The benchmark's own identifier, unique within the split.
        reference: Name of the reference image.
        text: The modification text as joined by the protocol.
        targets: Names of the right answers, the annotated target first; empty if hidden.
        subset: The other members of the reference's hard-negative group (CIRR only).
        category: Gallery the query is asked against; "" where there is one gallery.
        captions: The annotators' texts before joining, stripped by the benchmark's rule.
        aspects: Semantic aspects of the change (CIRCO validation only).
        alternatives: Further readings of the text; their features are averaged with the
            text's (FashionIQ, both orders).
        references: Every reference image of a query of several, `reference` among them; empty
            where there is one.
        negatives: Names of images that are named as wrong answers.
    """

    query_id: str
    reference: str
    text: str
    targets: tuple[str, ...] = ()
    subset: tuple[str, ...] = ()
    category: str = ""
    captions: tuple[str, ...] = ()
    aspects: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Every reading of the modification text; unit features are averaged over them."""
        return (self.text, *self.alternatives)


@dataclass(frozen=True)
class Benchmark:
    """One split of one benchmark under one explicit protocol.

    Attributes:
        name: Name in the registry, such as ``cirr``.
        split: The split's published name.
        queries: All queries, grouped by category, in the order of the annotation files.
        galleries: Category -> image names in gallery order (ties in a ranking follow it).
        image_paths: Image name -> file found; filled by ``images.locate_images``.
        missing: Names that were looked for and not found, in gallery order.
        protocol: Every choice that changes a number, as plain JSON.
        image_candidates: Image name -> files it may be, best first.
    """

    name: str
    split: str
    queries: tuple[Query, ...]
    galleries: Mapping[str, tuple[str, ...]]
    image_paths: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    protocol: Mapping[str, JsonValue] = field(default_factory=dict)
    image_candidates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The benchmark family whose prompts and fusion weights apply."""
        return str(self.protocol.get("family", self.name))

    @property
    def categories(self) -> tuple[str, ...]:
        """Gallery names in protocol order; ("",) where there is a single gallery."""
        return tuple(self.galleries)

    @property
    def exclude_reference(self) -> bool:
        """Whether a query's own reference image is taken out of its ranking."""
        return bool(self.protocol.get("exclude_reference", False))

    @property
    def has_targets(self) -> bool:
        """Whether every query's right answers are public."""
        return bool(self.queries) and all(query.targets for query in self.queries)

    def queries_of(self, category: str) -> tuple[Query, ...]:
        """The queries asked against one category's gallery, in annotation order."""
        return tuple(query for query in self.queries if query.category == category)
