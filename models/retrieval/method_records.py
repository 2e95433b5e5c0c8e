"""Methods as records: for a benchmark family, weights over named features or one function.

A `Recipe` sums features of one space. A `LateFusion` sums the similarities of several recipes,
each in a space of its own; it is still one dot product, of vectors laid end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from models.retrieval.cvsi_settings import CVSI, CvsiSettings
from models.retrieval.fusion import PartNorm, Similarity, for_search, fuse, unit
from models.retrieval.ldre import LdreSettings

if TYPE_CHECKING:
    from models.protocols import Json, PreprocessMode

Status: TypeAlias = Literal["ready", "needs_checkpoint", "not_implemented", "numbers_only"]
Group: TypeAlias = Literal[
    "baseline",
    "textual inversion",
    "text generator",
    "complementary",
    "ablation",
    "trained",
    "generative",
]
Features: TypeAlias = "Mapping[str, np.ndarray[Any, Any]]"
Combine: TypeAlias = "Callable[[Features, Mapping[str, Any]], np.ndarray[Any, Any]]"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a method ranks on one benchmark family.

    Attributes:
        query: Weight by query feature. Zero weights are dropped.
        gallery: Weight by gallery feature.
        norms: Parts that are not scaled to length one before they are summed.
        similarity: `cosine` or `dot`.
        combine: Makes the query vectors from (query features, gallery features) where a
            weighted sum cannot; `query` then only names the features it reads.
        combined_by: The settings that `combine` follows.
    """

    query: Mapping[str, float]
    gallery: Mapping[str, float] = field(default_factory=lambda: {"image": 1.0})
    norms: Mapping[str, PartNorm] = field(default_factory=dict)
    similarity: Similarity = "cosine"
    combine: Combine | None = None
    combined_by: LdreSettings | None = None

    def __post_init__(self) -> None:
        """Drop zero weights; refuse a side that has none left."""
        for side in ("query", "gallery"):
            used = {name: weight for name, weight in getattr(self, side).items() if weight}
            if not used:
                raise ValueError(f"all {side} features have weight 0")
            object.__setattr__(self, side, MappingProxyType(used))

    def query_vectors(self, query: Features, gallery: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """Query vectors (Q, d) from features by name; gallery features only for `combine`."""
        if self.combine is not None:
            return self.combine(query, gallery)
        return fuse(query, self.query, self.norms)

    def gallery_vectors(self, gallery: Features) -> np.ndarray[Any, Any]:
        """Gallery vectors (G, d) that a plain dot product with the query ranks by."""
        fused = fuse(gallery, self.gallery, self.norms)
        is_unit = list(self.gallery.values()) == [1.0] and not self.norms  # of length one already
        return fused if is_unit else for_search(fused, self.similarity)

    def as_json(self) -> dict[str, Json]:
        """The recipe as protocols and `cirflow methods` show it."""
        return {
            "similarity": self.similarity,
            "query_weights": dict(self.query),
            "gallery_weights": dict(self.gallery),
            **({"combined_by": self.combined_by.model_dump()} if self.combined_by else {}),
        }


@dataclass(frozen=True)
class LateFusion:
    """Several recipes, each in a space of its own, ranked by the weighted sum of similarities.

    With q_i and t_i the query and gallery vectors of recipe i, whose lengths count for nothing
    under the cosine,

        score = sum_i w_i cos(q_i, t_i) = <[sqrt(w_i) q_i / |q_i|]_i, [sqrt(w_i) t_i / |t_i|]_i>,

    so that a plain search over concatenated vectors is exact. (A recipe that ranks by the dot
    product keeps the lengths of its gallery vectors.)

    Attributes:
        parts: (weight, recipe), weights positive. Parts of weight 0 are dropped.
    """

    parts: tuple[tuple[float, Recipe], ...]

    def __post_init__(self) -> None:
        """Drop parts without weight; refuse weights that no dot product can carry."""
        used = tuple((weight, recipe) for weight, recipe in self.parts if weight)
        if not used or any(weight < 0 for weight, _ in used):
            given = ", ".join(str(weight) for weight, _ in self.parts)
            raise ValueError(f"late fusion needs weights >= 0 and not all 0, not {given or 'none'}")
        object.__setattr__(self, "parts", used)

    @property
    def query(self) -> Mapping[str, float]:
        """The query features that the parts read, each with its weight inside its own part."""
        return {name: w for _, recipe in self.parts for name, w in recipe.query.items()}

    @property
    def gallery(self) -> Mapping[str, float]:
        """The gallery features that the parts read, each with its weight inside its own part."""
        return {name: w for _, recipe in self.parts for name, w in recipe.gallery.items()}

    def query_vectors(self, query: Features, gallery: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """Query vectors (Q, sum of d_i)."""
        return np.concatenate(
            [weight**0.5 * unit(part.query_vectors(query, gallery)) for weight, part in self.parts],
            axis=1,
        )

    def gallery_vectors(self, gallery: Features) -> np.ndarray[Any, Any]:
        """Gallery vectors (G, sum of d_i) that a plain dot product with the query ranks by."""
        return np.concatenate(
            [weight**0.5 * part.gallery_vectors(gallery) for weight, part in self.parts], axis=1
        )

    def as_json(self) -> dict[str, Json]:
        """The fusion as protocols and `cirflow methods` show it."""
        return {
            "similarity": "weighted sum over the parts",
            "parts": [{"weight": weight, **part.as_json()} for weight, part in self.parts],
        }


AnyRecipe: TypeAlias = Recipe | LateFusion
RecipeMaker: TypeAlias = "Callable[[str, CvsiSettings], AnyRecipe]"
"""Makes the recipe of a benchmark family under CVSI's settings, when it is asked for."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method: its names, its source and how it ranks.

    Attributes:
        name: Key in `METHODS` and on the command line.
        title: Name in tables.
        group: Kind of method, for sorting a leaderboard.
        paper: Where it was published.
        description: One sentence on how the query is made.
        make: Makes its recipe for a benchmark family; None for methods that do not run here.
        status: `ready`; `needs_checkpoint` where a profile may or may not name one;
            `not_implemented`; `numbers_only`.
        reason: Why the status is not `ready`, and what would change that.
        settings: CVSI's choices for the stages upstream (captions, edits, objects).
        preprocess: How its own code makes pixels of pictures.
        ablates: The method that this one lacks a part of.
        blends: The two methods that this one is the late fusion of.
        weighed_by: The setting of its weights where it is the second of a late fusion.
        reranks: The method whose best images a network of this one's name orders again.
        verifies: The method whose best images a verifier looks at.
        weighs: The method whose query parts a gate weighs for each query.
        configured_by: Makes `make` from a profile's settings of LDRE, where the method has some.
    """

    name: str
    title: str
    group: Group
    paper: str
    description: str
    make: RecipeMaker | None = None
    status: Status = "ready"
    reason: str = ""
    settings: CvsiSettings = CVSI
    preprocess: PreprocessMode = "targetpad"
    ablates: str = ""
    blends: tuple[str, str] | None = None
    weighed_by: str = "instructcir.weights"
    reranks: str = ""
    verifies: str = ""
    weighs: str = ""
    configured_by: Callable[[LdreSettings], RecipeMaker] | None = None

    @property
    def runs(self) -> bool:
        """Whether rankings can be made, given its checkpoints."""
        return self.make is not None

    def recipe(self, family: str) -> AnyRecipe:
        """How it ranks on a benchmark family.

        Raises:
            ValueError: It does not run here, or has no weights for this family.
        """
        if self.make is None:
            raise ValueError(f"{self.title} does not run here ({self.status}): {self.reason}")
        return self.make(family, self.settings)


def everywhere(
    query: Mapping[str, float], combine: Combine | None = None, gallery: str = "image"
) -> RecipeMaker:
    """The same recipe for every benchmark family."""
    recipe = Recipe(query=query, gallery={gallery: 1.0}, combine=combine)
    return lambda family, settings: recipe


def late_fusion(first: Method, second: Method, weights: Mapping[str, float]) -> RecipeMaker:
    """(1 - w) times the first method's similarity plus w times the second's.

    Args:
        first: A method of weighted sums.
        second: Another.
        weights: Benchmark family -> w in [0, 1]. At 0 and 1 one method is left as it is.

    Returns:
        The maker of a family's recipe. It raises ValueError where the family has no weight or
        a method is a late fusion itself.
    """

    def make(family: str, settings: CvsiSettings) -> LateFusion:
        if family not in weights or not 0.0 <= weights[family] <= 1.0:
            raise ValueError(
                f"late fusion needs a weight between 0 and 1 for the benchmark family {family!r}, "
                f"not {dict(weights)}: set {second.weighed_by}.{family}"
            )
        parts = []
        for weight, part in ((1.0 - weights[family], first), (weights[family], second)):
            recipe = part.recipe(family)
            if isinstance(recipe, LateFusion):
                raise ValueError(
                    f"{part.title} is a late fusion itself; name the methods that it is made of"
                )
            parts.append((weight, recipe))
        return LateFusion(tuple(parts))

    return make
