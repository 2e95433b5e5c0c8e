"""What a method is: weights over named features, or one function, per style of benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from models.cvsi_settings import CVSI, CvsiSettings
from models.features import GALLERY_FEATURES, QUERY_FEATURES
from models.fusion import PartNorm, Similarity, for_search, fuse

if TYPE_CHECKING:
    import numpy as np

Status: TypeAlias = Literal["ready", "needs_checkpoint", "not_implemented", "numbers_only"]
Group: TypeAlias = Literal[
    "baseline", "textual inversion", "text generator", "complementary", "ablation", "trained"
]
Features: TypeAlias = "Mapping[str, np.ndarray[Any, Any]]"
Combine: TypeAlias = "Callable[[Features, Features], np.ndarray[Any, Any]]"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a method ranks on one style of benchmark.

    Attributes:
        query: Weight by query feature. Zero weights are dropped.
        gallery: Weight by gallery feature.
        norms: Parts that are not scaled to length one before they are summed.
        similarity: `cosine` or `dot`.
        combine: Makes the query vectors from (query features, gallery features) where a
            weighted sum cannot; `query` then only names the features it reads.
    """

    query: Mapping[str, float]
    gallery: Mapping[str, float] = field(default_factory=lambda: {"image": 1.0})
    norms: Mapping[str, PartNorm] = field(default_factory=dict)
    similarity: Similarity = "cosine"
    combine: Combine | None = None

    def __post_init__(self) -> None:
        """Drop zero weights and refuse features that nothing makes."""
        for side, known in (("query", QUERY_FEATURES), ("gallery", GALLERY_FEATURES)):
            used = {name: weight for name, weight in getattr(self, side).items() if weight}
            unknown = sorted(used.keys() - known.keys())
            if unknown or not used:
                raise ValueError(
                    f"{side} features {', '.join(unknown) or 'all have weight 0'}; "
                    f"known: {', '.join(known)}"
                )
            object.__setattr__(self, side, MappingProxyType(used))

    def query_vectors(self, query: Features, gallery: Features) -> np.ndarray[Any, Any]:
        """Query vectors (Q, d) from features by name; gallery features only for `combine`."""
        if self.combine is not None:
            return self.combine(query, gallery)
        return fuse(query, self.query, self.norms)

    def gallery_vectors(self, gallery: Features) -> np.ndarray[Any, Any]:
        """Gallery vectors (G, d) that a plain dot product with the query ranks by."""
        return for_search(fuse(gallery, self.gallery, self.norms), self.similarity)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row: what a method is called, where it comes from and how it ranks.

    Attributes:
        name: Key in `METHODS` and on the command line.
        title: Name in tables.
        group: Kind of method, for sorting a leaderboard.
        paper: Where it was published.
        description: One sentence on how the query is made.
        recipes: `Recipe` by style of benchmark; empty for methods that do not run here.
        status: `ready`; `needs_checkpoint` of the user; `not_implemented`; `numbers_only`.
        reason: Why the status is not `ready`, and what would change that.
        settings: CVSI's choices for the stages upstream (captions, edits, objects).
        ablates: The method that this one lacks a part of.
    """

    name: str
    title: str
    group: Group
    paper: str
    description: str
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    status: Status = "ready"
    reason: str = ""
    settings: CvsiSettings = CVSI
    ablates: str = ""

    @property
    def runs(self) -> bool:
        """Whether rankings can be made, given its checkpoints."""
        return bool(self.recipes)

    def recipe(self, style: str) -> Recipe:
        """How it ranks on a style of benchmark.

        Raises:
            ValueError: It does not run here, or not on this style.
        """
        if not self.runs:
            raise ValueError(f"{self.title} does not run here ({self.status}): {self.reason}")
        if style not in self.recipes:
            raise ValueError(f"{self.title} knows {', '.join(self.recipes)}, not {style!r}")
        return self.recipes[style]

    def needs(self, style: str) -> tuple[str, ...]:
        """Stages that must have run before its features can be made, sorted."""
        recipe = self.recipe(style)
        stages = [QUERY_FEATURES[name].needs for name in recipe.query]
        stages += [GALLERY_FEATURES[name].needs for name in recipe.gallery]
        return tuple(sorted({stage for needs in stages for stage in needs}))
