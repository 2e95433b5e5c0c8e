"""The approximate index of a gallery's vectors: made once, kept next to a feature's matrix."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from models.retrieval.faiss_library import require_faiss
from models.retrieval.method_records import AnyRecipe, Recipe
from storage.locations.location import Location
from storage.tables.keys import content_key
from storage.tables.matrices import create_derived, read_tail
from tasks.galleries import OpenGallery, derived
from tasks.settings import SearchSettings

if TYPE_CHECKING:
    from models.retrieval.approximate import Recall
    from tasks.stages.rankings import AnyGalleryFeature

_NOTE = 256
"""Bytes behind an index that say how near it comes."""


def index_of(
    settings: SearchSettings,
    stages: Mapping[str, AnyGalleryFeature],
    recipe: AnyRecipe,
    opened: OpenGallery,
) -> tuple[Any, Recall]:
    """The index of the vectors that a method ranks by, and its recall.

    Raises:
        ValueError: faiss is not installed, or the index has no place.
    """
    from models.retrieval import approximate
    from models.retrieval.gallery import Gallery

    require_faiss()
    tables = [stages[name].existing_table() for name in recipe.gallery]
    identity = {
        "kind": approximate.KIND,
        "recipe": _identity(recipe),
        "features": [table.spec_key for table in tables],
        "keys": opened.images,
        **settings.model_dump(include={"candidates", "recall"}),
    }
    path = f"{tables[0].folder}/index-{content_key(identity)}.faiss"
    images = Gallery(opened.features, recipe.gallery_vectors)

    def write(file: BinaryIO) -> None:
        index, recall = approximate.build_index(images, settings.recall, settings.candidates)
        approximate.save_index(index, file.write)
        file.write(json.dumps(recall.__dict__).ljust(_NOTE).encode())

    def read(home: Location, path: str) -> tuple[Any, Recall]:
        recall = approximate.Recall(**json.loads(read_tail(home, path, _NOTE)))
        return approximate.load_index(home.join(path), recall), recall

    found = derived(
        tables[0].location,
        lambda: path,
        lambda home, path: create_derived(home, path, write),
        read,
    )
    if found is None:
        raise ValueError("the approximate index has no place; set search.approximate_above=0")
    return found


def _identity(recipe: AnyRecipe) -> Any:
    """What of a method changes the vectors of images."""
    if isinstance(recipe, Recipe):
        return [dict(recipe.gallery), dict(recipe.norms), recipe.similarity]
    return [[weight, _identity(part)] for weight, part in recipe.parts]
