"""What the first search would wait for: code, open galleries and models, there before it comes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from importlib import import_module
from itertools import combinations_with_replacement
from typing import Final

from models.retrieval.cvsi_settings import SEARCH_FAMILY
from models.retrieval.gate import recipe_parts
from tasks.engines import load_captioner, load_encoder, load_generator, load_mapping
from tasks.kept_searches import Kept
from tasks.methods import configured_method, late_weights, settings_of
from tasks.planner import query_stages
from tasks.query_sets import NO_QUERY
from tasks.settings import Profile
from tasks.stages.captions import CaptionStage
from tasks.stages.query_features import QueryFeatureStage
from tasks.stages.rankings import AnyGalleryFeature
from tasks.stages.rewrites import RewriteStage
from tasks.stages.stage import Stage, in_order

SEARCH_IMPORTS: Final = (
    "models.retrieval.apart",
    "models.retrieval.approximate",
    "models.retrieval.contributions",
    "models.retrieval.gallery",
    "models.retrieval.query_weights",
    "tasks.search_gallery",
)
"""Modules that wait for the first search; `tests/deployments/service/test_warming.py` compares."""


def warm_gallery(
    profile: Profile,
    collection: str,
    gallery: Mapping[str, AnyGalleryFeature],
    method: str,
    kept: Kept,
) -> None:
    """Open a gallery as `search_gallery` does; read its features and names of files once.

    Raises:
        IncompleteTable: the gallery was not embedded under this profile.
    """
    row = configured_method(
        method, settings_of(method, profile.cvsi), late_weights(method, profile), profile.ldre
    )
    recipe = row.recipe(SEARCH_FAMILY)
    used = {name: gallery[name] for name in recipe.gallery}
    listed, opened = kept.gallery(profile, collection, used)
    kept.paths(listed)
    if profile.search.is_approximate(len(opened.keys)):
        return
    for part in recipe_parts(recipe):
        for one, other in combinations_with_replacement(sorted(part.gallery), 2):
            kept.own_products(profile.root, opened, one, other)


def warm_models(profile: Profile, collection: str, method: str, kept: Kept) -> None:
    """Load the encoder, mapping network, captioner and text generator that queries need.

    Nothing is asked of them. Other models (second stages, trained networks) are loaded when they
    are first used.
    """
    stages = query_stages(profile, NO_QUERY, collection, method, SEARCH_FAMILY)
    for stage in in_order(stages.values()):
        for mark, load in _loads(stage):
            _load_once(kept, mark, load)


def warm_code() -> None:
    """Import what a search imports when it needs it."""
    for name in SEARCH_IMPORTS:
        import_module(name)


def _load_once(kept: Kept, mark: Hashable, load: Callable[[], object]) -> None:
    """Load in turn with searches; `tasks.engines` holds what is loaded, not `kept`."""
    kept.once(("loaded", mark), lambda: load() is not None)


def _loads(stage: Stage) -> Iterator[tuple[Hashable, Callable[[], object]]]:
    if isinstance(stage, QueryFeatureStage):
        yield stage.encoder, lambda: load_encoder(stage.encoder)
        if stage.mapping:
            yield stage.mapping, lambda: load_mapping(stage.mapping)
    elif isinstance(stage, CaptionStage):
        yield stage.captioner, lambda: load_captioner(stage.captioner)
    elif isinstance(stage, RewriteStage):
        yield stage.generator, lambda: load_generator(stage.generator)
