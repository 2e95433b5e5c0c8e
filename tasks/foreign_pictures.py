"""Pictures that a profile's models were not made for, said in words wherever results are shown.

The shipped small models were trained on drawn shapes alone: their folders say so by the recipe
that trained them. On photographs every step runs, and its words and order mean nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from models.encoders.drawn_pictures import look_drawn
from models.encoders.spec import EncoderSpec
from models.engine_settings import CheckpointSettings
from storage.collections.collection import Collection
from storage.collections.decoding import ImageProblem, decode_image
from storage.locations.location import Location

if TYPE_CHECKING:
    from PIL.Image import Image

    from tasks.settings import Profile

SAMPLE: Final = 16
"""Pictures of a collection that are looked at."""
RECIPE: Final = "recipe.json"
"""The file of a shipped folder that says how it was trained on drawn pictures."""
SUITED: Final = "small (one GPU or a CPU) or production"
"""Profiles whose models read photographs."""


def only_drawn(engines: Mapping[str, object]) -> list[str]:
    """Those of some models that know drawn pictures alone.

    Args:
        engines: What a model does -> its settings.
    """
    return [what for what, engine in engines.items() if _is_shipped(engine)]


def _is_shipped(engine: object) -> bool:
    place = engine.name if isinstance(engine, EncoderSpec) else ""
    place = engine.model if isinstance(engine, CheckpointSettings) else place
    return bool(place) and Path(place, RECIPE).is_file()


def warning_for(profile: Profile, *collections: str) -> str:
    """What is wrong with the results of a profile on collections; empty: nothing is known."""
    engines = {
        "encoder": profile.encoder,
        "captioner": profile.captioner,
        "text generator": profile.generator,
    }
    return warning_on(profile.root, collections, engines)


def warning_on(root: str, collections: Sequence[str], engines: Mapping[str, object]) -> str:
    """What is wrong with the results of some models on collections; empty: nothing is known.

    At most `SAMPLE` pictures of each are read, once, and none where no model is a shipped one.

    Args:
        root: Root of the tables.
        collections: Names of ingested collections.
        engines: What a model does -> its settings.
    """
    models = only_drawn(engines)
    foreign = [name for name in collections if models and _is_foreign(root, name)]
    if not foreign:
        return ""
    return (
        f"RESULTS MEAN NOTHING HERE: the pictures of {', '.join(foreign)} are not drawn shapes, "
        f"and the small models that ship with cirflow ({', '.join(models)}) know nothing else. "
        f"Use a profile with real models: {SUITED}; `cirflow doctor --profile small` says what it "
        "downloads and whether it runs here"
    )


def _is_foreign(root: str, collection: str) -> bool:
    return _looked_at(root, collection, Collection.open(Location(root), collection).listing)


@functools.lru_cache(maxsize=512)
def _looked_at(root: str, collection: str, listing: str) -> bool:
    """Whether a collection's pictures are not drawn ones; looked at once for each listing."""
    return not look_drawn(_sample(root, collection))


def _sample(root: str, collection: str) -> Iterator[Image]:
    """Decoded pictures of a collection, spread over its image ids."""
    images = Collection.open(Location(root), collection)
    ids = images.image_ids()
    step = max(1, len(ids) // SAMPLE)
    chosen = [ids[place] for place in range(0, len(ids), step)][:SAMPLE]
    for _, data in images.read_images(chosen):
        try:
            yield decode_image(data, shortest=96)
        except ImageProblem:  # its row says so; it tells nothing here
            continue
