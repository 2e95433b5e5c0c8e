"""What a search asks for, and what of it cannot be done here: refused before models are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from models.retrieval.faiss_library import require_faiss
from models.retrieval.method_records import AnyRecipe, Method
from tasks.at_hand import files_are_here, require_files, require_mappings
from tasks.methods import configured_method, late_weights, settings_of
from tasks.planner import gallery_stages, query_stages
from tasks.query_sets import NO_QUERY
from tasks.settings import Profile
from tasks.stages.stage import in_order, require_hosts

if TYPE_CHECKING:
    from models.retrieval.contributions import Weights


class Asked(NamedTuple):
    """The method of a search, and the features and weights that its queries have."""

    row: Method
    recipe: AnyRecipe


def asked_of(profile: Profile, method: str, family: str, weights: Weights | None = None) -> Asked:
    """What a search weighs.

    Args:
        profile: Engines and settings.
        method: A method that runs here.
        family: Benchmark family whose weights are used.
        weights: In place of the method's own, of some of its features.

    Raises:
        ValueError: The method takes no such weights, or its verifier reads what a search lacks.
    """
    from models.retrieval.contributions import reweighed  # brings numpy

    settings = settings_of(method, profile.cvsi)
    row = configured_method(method, settings, late_weights(method, profile), profile.ldre)
    recipe = row.recipe(family)
    if weights and row.weighs:
        raise ValueError(
            f"a gate says the weights of {method} for each query; they cannot be moved"
        )
    if row.verifies and profile.verify.candidates and profile.verify.reads_captions:
        raise ValueError(
            f"{profile.verify.verifier.title} compares with an edited caption, which a search does "
            "not make for it; choose a verifier that reads the reference (verify.verifier.engine="
            "qwen3-vl)"
        )
    return Asked(row, reweighed(recipe, weights) if weights else recipe)


def takes_index(profile: Profile, asked: Asked, images: int) -> bool:
    """Whether a gallery of so many images is searched by an index.

    Raises:
        ValueError: The method reads the whole gallery, or faiss is not installed.
    """
    if not profile.search.is_approximate(images):
        return False
    if asked.row.weighs:
        raise ValueError(
            f"{asked.row.name} reads what each part finds in the whole gallery; search exactly "
            "(search.approximate_above=0)"
        )
    require_faiss()
    return True


def require_search(
    profile: Profile, collection: str, method: str, family: str, weights: Weights | None = None
) -> None:
    """Refuse a search that this machine cannot answer; nothing heavy is imported for it.

    Args:
        profile: Engines and settings.
        collection: Name of the gallery's collection, which is embedded.
        method: A method that runs here.
        family: Benchmark family whose prompts and weights are used.
        weights: In place of the method's own, of some of its features.

    Raises:
        ValueError: As `asked_of` and `takes_index`; or files or a device are missing.
        EngineUnavailable: A server cannot be used.
    """
    asked = asked_of(profile, method, family, weights)
    if profile.search.approximate_above:
        gallery = gallery_stages(profile, collection, method).values()
        takes_index(profile, asked, max(len(stage.planned()) for stage in gallery))
    own = query_stages(profile, NO_QUERY, NO_QUERY.collection_name, method, family)
    stages = in_order(own.values())
    require_files(stages)
    require_mappings(stages)
    further = [profile.verify.verifier] if asked.row.verifies else []
    for engine in further:
        files_are_here(engine)
    for stage in stages:  # what a query needs is made for it and kept nowhere
        require_hosts(stage)
    for engine in further:
        engine.require_host()
