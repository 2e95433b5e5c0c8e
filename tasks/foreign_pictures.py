"""Pictures that a profile's models were not made for, said in words wherever results are shown.

The shipped small models were trained on drawn shapes alone: their folders say so by the recipe
that trained them. On photographs every step runs, and its words and order mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def warning_for(profile: Profile, collection: str) -> str:
    """What is wrong with the results of a profile on a collection; empty: nothing is known."""
    engines = {
        "encoder": profile.encoder,
        "captioner": profile.captioner,
        "text generator": profile.generator,
    }
    return warning_on(profile.root, collection, engines)


def warning_on(root: str, collection: str, engines: Mapping[str, object]) -> str:
    """What is wrong with the results of some models on a collection; empty: nothing is known.

    At most `SAMPLE` pictures are read, and none where no model is a shipped small one.

    Args:
        root: Root of the tables.
        collection: Name of an ingested collection.
        engines: What a model does -> its settings.
    """
    models = only_drawn(engines)
    if not models or look_drawn(_sample(root, collection)):
        return ""
    return (
        f"RESULTS MEAN NOTHING HERE: the pictures of {collection} are not drawn shapes, and the "
        f"small models that ship with cirflow ({', '.join(models)}) know nothing else. Use a "
        f"profile with real models: {SUITED}; `cirflow doctor --profile small` says what it "
        "downloads and whether it runs here"
    )


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
