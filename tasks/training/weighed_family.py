"""What the weights for each query of a benchmark family are trained on. The planner reads this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.retrieval.method_records import AnyRecipe
from tasks.stages.rankings import AnyGalleryFeature, AnyQueryFeature
from tasks.stages.stage import Stage


@dataclass(frozen=True)
class WeighedFamily:
    """What a gate of one benchmark family is trained on.

    Attributes:
        recipe: The parts, and how the gallery's features are summed.
        excludes_reference: Whether the family's rankings leave the reference out.
        queries: Collection -> feature -> stage.
        galleries: Collection -> feature -> stage.
    """

    recipe: AnyRecipe
    excludes_reference: bool
    queries: Mapping[str, Mapping[str, AnyQueryFeature]]
    galleries: Mapping[str, Mapping[str, AnyGalleryFeature]]

    @property
    def stages(self) -> list[Stage]:
        """All features."""
        sides = (*self.queries.values(), *self.galleries.values())
        return [stage for side in sides for stage in side.values()]

    @property
    def identity(self) -> dict[str, Any]:
        """Features by content, and the rule."""
        return {
            "recipe": self.recipe.as_json(),
            "excludes_reference": self.excludes_reference,
            "features": [
                {collection: {name: stage.spec_key for name, stage in own.items()}}
                for side in (self.queries, self.galleries)
                for collection, own in sorted(side.items())
            ],
        }
