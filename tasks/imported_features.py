"""Vectors of images that others made, as a table of their own: features, or pseudo tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.spelling import counted
from models.vector_files import agreement, faults, read_names, read_vectors, rows_of
from storage.benchmarks.parsing import strict_json
from storage.collections.collection import Collection
from storage.exchange.sources import ExchangeError, SourceFile
from storage.exchange.triplet_forms import image_number
from storage.locations.location import Location
from storage.tables.plans import Shard
from storage.tables.schemas import OK
from storage.tables.table import Table, load_table, open_table
from tasks.image_names import ImageNames

if TYPE_CHECKING:
    from models.protocols import FloatArray

PRODUCER: Final = "cirflow/imported_features/1"
TOKENS: Final = "ema_oti_pseudo_tokens.pt"
"""The file of SEARLE's OTI folders that its authors evaluate with."""
_SHARD: Final = 4096


@dataclass(frozen=True)
class Given:
    """Vectors and their names.

    Attributes:
        vectors: File of the vectors.
        names: File of their names, in the same order.
        tensor: Name of the tensor in it; empty where there is one.
        about: What is known of their making, for the spec.
    """

    vectors: Path
    names: Path
    tensor: str
    about: dict[str, Any]


@dataclass(frozen=True)
class ImportedFeatures:
    """What an import found.

    Attributes:
        spec_key: Key of the table `image_features`.
        named: Vectors in the file.
        joined: Images that have one now.
        unusable: Of these, rows without a usable vector.
        repeated: Names that occurred before; the last counts.
        absent: Names without an image in the collection.
        without: Images of the collection that no vector is for.
    """

    spec_key: str
    named: int
    joined: int
    unusable: int
    repeated: int
    absent: int
    without: int


def searle_folder(folder: Path) -> Given:
    """The tokens of an OTI folder; `image_names.pkl` must have been converted to JSON.

    Raises:
        ExchangeError: a file is not there.
    """
    names = folder / "image_names.json"
    if not names.is_file():
        raise ExchangeError(
            f"{names} is not there. The folder has image_names.pkl: convert it with `python -m "
            f"storage.exchange.plain_pickle {folder / 'image_names.pkl'} {names}`"
        )
    if not (folder / TOKENS).is_file():
        raise ExchangeError(f"{folder / TOKENS} is not there")
    settings = folder / "hyperparameters.json"
    try:
        about = strict_json(settings.read_bytes()) if settings.is_file() else {}
    except ValueError as error:
        raise ExchangeError(f"{settings} is not JSON: {error}") from error
    model = about.get("clip_model_name") if isinstance(about, dict) else None
    return Given(folder / TOKENS, names, "", {"kind": "pseudo tokens", "backbone": model or ""})


def import_features(
    root: str,
    given: Given,
    sources: Sequence[SourceFile],
    collection: str,
    *,
    numbered: bool = False,
    allow_missing: bool = False,
) -> ImportedFeatures:
    """Read vectors into a table of their own; the same files again make nothing.

    Args:
        root: Root of the tables.
        given: The files, and what is known of them.
        sources: The same files with their hashes.
        collection: An ingested collection with the images.
        numbered: Names are COCO's numbers, with or without leading zeros.
        allow_missing: Whether names may have no image.

    Raises:
        ExchangeError: numbers differ, or a name has no image.
        ValueError: a file does not hold vectors or names.
    """
    vectors, names = read_vectors(given.vectors, given.tensor), read_names(given.names)
    if len(vectors) != len(names):
        raise ExchangeError(
            f"{given.vectors} holds {counted(len(vectors), 'vector')}, {given.names} "
            f"{counted(len(names), 'name')}"
        )
    known = ImageNames(root, collection, image_number if numbered else str)
    places: dict[str, int] = {}
    absent = repeated = 0
    for row, name in enumerate(names):
        image = known.find(name)
        if image is None and not allow_missing:
            raise ExchangeError(
                f"{given.names}, name {row + 1}: no image {name} in {collection}. Ingest it, or "
                "leave out what is absent: --allow-missing"
            )
        if image is None:
            absent += 1
        else:
            repeated += image in places
            places[image] = row  # SEARLE's resumed runs write a name again: the last counts
    if not places:
        given_names = counted(len(names), "name")
        raise ExchangeError(f"none of the {given_names} is an image of {collection}")
    table = open_table(
        Location(root),
        "image_features",
        _spec(root, given, sources, collection, vectors.shape[1], numbered),
    )
    own = rows_of(vectors, list(places.values()))
    unusable = _publish(table, list(places), own)
    without = len(known.classes.keys() - places.keys())
    return ImportedFeatures(
        table.spec_key, len(names), len(places), unusable, repeated, absent, without
    )


def _spec(
    root: str,
    given: Given,
    sources: Sequence[SourceFile],
    collection: str,
    dim: int,
    numbered: bool,
) -> dict[str, Any]:
    return {
        "producer": PRODUCER,
        "imported": [{"file": source.name, "sha256": source.sha256} for source in sources],
        **given.about,
        "tensor": given.tensor,
        "numbered": numbered,
        "dim": dim,
        "dtype": "float32",
        "collection": {
            "name": collection,
            "listing": Collection.open(Location(root), collection).listing,
        },
    }


def _publish(table: Table, images: Sequence[str], vectors: FloatArray) -> int:
    """Publish a row for each image; returns the number of unusable ones."""
    reasons = faults(vectors)
    order = sorted(range(len(images)), key=images.__getitem__)
    for start in range(0, len(order), _SHARD):
        rows = order[start : start + _SHARD]
        table.publish(
            Shard.of([images[row] for row in rows]),
            table.rows(
                image_id=[images[row] for row in rows],
                vector=[None if reasons[row] else vectors[row] for row in rows],
                status=["rejected" if reasons[row] else OK for row in rows],
                reason=[reasons[row] for row in rows],
            ),
        )
    return sum(map(bool, reasons))


def compared(root: str, spec_key: str, other: str) -> tuple[int, float, float]:
    """Images that two tables of vectors share, the mean and the least cosine between them.

    Raises:
        UnknownTable: one of them is not there.
        ValueError: they share no image, or their widths differ.
    """
    one, two = (load_table(Location(root), "image_features", key) for key in (spec_key, other))
    shared = sorted(set(_usable(one)) & set(_usable(two)))
    if not shared:
        raise ValueError(f"image_features/{spec_key} and {other} share no image")
    return len(shared), *agreement(one.vectors(shared), two.vectors(shared))


def stored(root: str, spec_key: str, collection: str) -> tuple[list[str], FloatArray]:
    """Paths of a collection's images and their vectors in a table, sorted by path.

    Raises:
        ExchangeError: none of the images has a vector there.
    """
    table = load_table(Location(root), "image_features", spec_key)
    usable = set(_usable(table))
    rows = Collection.open(Location(root), collection).rows()
    paths: dict[str, str] = {}
    for image, path in rows.select("image_id", "path").iter_rows():
        if image in usable:
            paths.setdefault(image, path)
    if not paths:
        raise ExchangeError(f"no image of {collection} has a vector in image_features/{spec_key}")
    return list(paths.values()), table.vectors(list(paths))


def _usable(table: Table) -> list[str]:
    rows = table.read(["status"])
    return [key for key, status in rows.select("image_id", "status").iter_rows() if status == OK]
