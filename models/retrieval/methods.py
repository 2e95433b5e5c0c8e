"""Every method and every query feature, by name.

A method is weights over named query features and over named gallery features, ranked by one
similarity; LDRE combines its features by a function, and CVSI + InstructCIR adds the similarities
of two methods. Only the features that the chosen methods need are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final

from models.retrieval.features import COMPOSED, PLAIN_GALLERY_FEATURES, Feature, Need
from models.retrieval.method_records import Method
from models.spelling import unknown

NAMES: Final = (
    "baselines",
    "textual_inversion",
    "text_generator",
    "cvsi",
    "instructcir",
    "cvsi_ablations",
    "instructpix2pix",
    "early_fusion",
    "transagg",
    "clip4cir",
    "compodiff",
    "blip4cir_bi",
    "candidate",
)
"""Files in `models/retrieval/systems`: each has METHODS, and FEATURES (of queries) and GALLERY (of
gallery images) where it brings some."""

SYSTEMS: Final = tuple(import_module(f"models.retrieval.systems.{name}") for name in NAMES)

METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {row.name: row for system in SYSTEMS for row in system.METHODS}
)
QUERY_FEATURES: Final[Mapping[str, Feature]] = MappingProxyType(
    {each.name: each for system in SYSTEMS for each in getattr(system, "FEATURES", ())}
)
GALLERY_FEATURES: Final[Mapping[str, Feature]] = MappingProxyType(
    PLAIN_GALLERY_FEATURES
    | {each.name: each for system in SYSTEMS for each in getattr(system, "GALLERY", ())}
)


def method(name: str) -> Method:
    """A method by name.

    Raises:
        ValueError: The name is unknown; the nearest known one is named.
    """
    if name not in METHODS:
        raise ValueError(unknown("method", name, METHODS))
    return METHODS[name]


def needs(row: Method, family: str) -> tuple[Need, ...]:
    """The inputs that must exist before a method's features can be made, sorted.

    Raises:
        ValueError: the method does not run here, or weighs a feature that is not known.
    """
    recipe = row.recipe(family)
    found: set[Need] = {f"{COMPOSED}{row.name}"} if row.reranks else set()
    for side, known in ((recipe.query, QUERY_FEATURES), (recipe.gallery, GALLERY_FEATURES)):
        if unmade := sorted(side.keys() - known.keys()):
            raise ValueError(
                f"{row.title} weighs {', '.join(unmade)}, which is not a feature; known: "
                f"{', '.join(known)}"
            )
        found.update(need for name in side for need in known[name].needs)
    return tuple(sorted(found))
