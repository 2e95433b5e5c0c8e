"""Every method and every query feature, by name.

A method is weights over named query features and over named gallery features, ranked by one
similarity; LDRE combines its features by a function, and CVSI + InstructCIR adds the similarities
of two methods. Only the features that the chosen methods need are made. `METHOD+verify` is a method
whose best images a verifier looks at; each that runs has this row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from types import MappingProxyType
from typing import Final

from models.retrieval.features import COMPOSED, PLAIN_GALLERY_FEATURES, Feature, Need
from models.retrieval.method_records import Method
from models.retrieval.systems.query_weights import GATE
from models.spelling import unknown

NAMES: Final = (
    "baselines",
    "textual_inversion",
    "text_generator",
    "cvsi",
    "instructcir",
    "query_weights",
    "composed_embedding",
    "cvsi_ablations",
    "instructpix2pix",
    "early_fusion",
    "transagg",
    "clip4cir",
    "compodiff",
    "blip4cir_bi",
    "candidate",
    "magiclens",
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


VERIFY: Final = "+verify"
"""Follows the name of a method whose best images a verifier looks at."""
VERIFIER: Final[Need] = "verifier"
"""What such a method needs."""


def method(name: str) -> Method:
    """A method by name, with or without `+verify`.

    Raises:
        ValueError: The name is unknown; the nearest known one is named.
    """
    first = first_stage(name)
    if first not in METHODS:
        raise ValueError(unknown("method", first, METHODS))
    row = METHODS[first]
    return row if first == name else _verified(row)


def first_stage(name: str) -> str:
    """A method's name without `+verify`."""
    return name.removesuffix(VERIFY)


def title_of(name: str) -> str:
    """A method's title; the name itself where a ledger holds one that is not known here."""
    return method(name).title if first_stage(name) in METHODS else name


def _verified(row: Method) -> Method:
    return replace(
        row,
        name=f"{row.name}{VERIFY}",
        title=f"{row.title} + verify",
        description=f"{row.description} A verifier then looks at the best images.",
        verifies=row.name,
    )


def runnable_names() -> list[str]:
    """The methods that run here given their checkpoints, then each of them with `+verify`."""
    names = [name for name, row in METHODS.items() if row.runs]
    return [*names, *(f"{name}{VERIFY}" for name in names)]


def needs(row: Method, family: str) -> tuple[Need, ...]:
    """The inputs that must exist before a method's features can be made, sorted.

    Raises:
        ValueError: the method does not run here, or weighs a feature that is not known.
    """
    recipe = row.recipe(family)
    first = row.verifies or row.name
    found: set[Need] = {f"{COMPOSED}{first}"} if row.reranks else set()
    if row.verifies:
        found.add(VERIFIER)
    if row.weighs:
        found.add(f"{GATE}{row.weighs}")
    for side, known in ((recipe.query, QUERY_FEATURES), (recipe.gallery, GALLERY_FEATURES)):
        if unmade := sorted(side.keys() - known.keys()):
            raise ValueError(
                f"{row.title} weighs {', '.join(unmade)}, which is not a feature; known: "
                f"{', '.join(known)}"
            )
        found.update(need for name in side for need in known[name].needs)
    return tuple(sorted(found))
