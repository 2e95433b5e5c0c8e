"""The features of a gallery, mapped from a matrix that is made of their table when it is missing.

The matrix lies next to a table on a local disk, where all users of the root share it, and in the
user's cache folder for a root on S3 or one that cannot be written to. It is read whole once, to
check it against its hash, and again whenever the file has changed since.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from models.user_cache import recall, remember, user_cache_folder
from storage.checks.cleaning import remove_staged
from storage.locations.location import Location, takes_no_file
from storage.tables.keys import sha256_hex
from storage.tables.matrices import (
    Changed,
    Keys,
    Matrix,
    build_halves,
    build_matrix,
    fault_of,
    halves_path,
    held_matrix,
    map_halves,
    map_matrix,
    matrix_path,
    places_of,
    shared_keys,
)
from storage.tables.plans import DerivedKeys
from storage.tables.table import Table, require_complete

if TYPE_CHECKING:
    from models.protocols import Json
    from models.retrieval.gallery import Halves, Rows
    from tasks.settings import SearchSettings
    from tasks.stages.rankings import AnyGalleryFeature

T = TypeVar("T")
logger = logging.getLogger(__name__)

_TRIES = 5
_SHARE = 8
"""A gallery of fewer than one in so many of a table's vectors is not worth copies of all."""


def features_of(table: Table, keys: Sequence[str]) -> Rows:
    """The vectors of some keys, in their order; nothing of them is read yet.

    Raises:
        IncompleteTable: a key has no ok row.
    """
    from models.retrieval.gallery import Rows

    while True:
        matrix = mapped(table)
        places = places_of(keys, matrix.keys)
        lacking = [keys[i] for i in (places < 0).nonzero()[0]]
        if not lacking:
            return Rows.at(matrix.vectors, places)
        table.vectors(lacking)  # says what they lack, unless they were made this moment


@dataclass(frozen=True)
class OpenGallery:
    """A gallery that is ready for queries.

    Attributes:
        size: images of the gallery, those without features included.
        keys: (G,) sorted image ids of those that have every feature, as bytes.
        features: feature -> their rows.
        tables: feature -> the folder of its table, which its spec key names.
    """

    size: int
    keys: Keys
    features: Mapping[str, Rows]
    tables: Mapping[str, str]

    @functools.cached_property
    def images(self) -> str:
        """What tells these images from others: with a table's folder it says a feature's rows."""
        return sha256_hex(self.keys.tobytes())

    def ids(self, places: Iterable[int]) -> list[str]:
        """The image ids at some places."""
        return [self.keys[place].decode() for place in places]

    def place(self, image_id: str) -> int:
        """The place of an image, -1 if it is not there."""
        return int(places_of([image_id], self.keys)[0])


def open_gallery(
    stages: Mapping[str, AnyGalleryFeature],
    names: Iterable[str],
    allow_gaps: float,
    search: SearchSettings | None = None,
) -> OpenGallery:
    """Map the features of a gallery that a method weighs; memory does not grow with it.

    Args:
        stages: the gallery's features, filled beforehand.
        names: those that are weighed.
        allow_gaps: fraction of the images that may lack one.
        search: how single queries are searched; None: none will be.

    Raises:
        IncompleteTable: more lack one.
    """
    from models.retrieval.gallery import Rows

    tables = {name: stages[name].existing_table() for name in names}
    images = next(iter(stages.values())).planned_keys()
    covered = {
        name: require_complete(table, images, allow_gaps=allow_gaps)
        for name, table in tables.items()
    }
    found = {name: mapped(table) for name, table in tables.items()}
    folders = {name: table.folder for name, table in tables.items()}
    if all(covered[n].ok == covered[n].planned == len(found[n].keys) for n in found):
        # As many rows as images, each image among them: so the tables' keys are the images.
        keys = next(iter(found.values())).keys
        halves = _halves(tables, found, search, len(keys))
        every = {n: Rows(each.vectors, halves=halves.get(n)) for n, each in found.items()}
        return OpenGallery(len(keys), keys, every, folders)
    planned = images.make() if isinstance(images, DerivedKeys) else images
    keys, places = shared_keys(planned, [matrix.keys for matrix in found.values()])
    halves = _halves(tables, found, search, len(keys))
    rows = {
        name: Rows.at(matrix.vectors, own, halves.get(name))
        for (name, matrix), own in zip(found.items(), places, strict=True)
    }
    return OpenGallery(len(planned), keys, rows, folders)


def _halves(
    tables: Mapping[str, Table],
    matrices: Mapping[str, Matrix],
    search: SearchSettings | None,
    images: int,
) -> dict[str, Halves]:
    """Feature -> its matrix in float16, where searches take it and a file can hold it."""
    if search is None or not search.takes_halves(images):
        return {}
    from models.retrieval.gallery import Halves
    from models.retrieval.halves import multiplies_halves

    if not multiplies_halves():
        return {}
    found: dict[str, Halves] = {}
    for name, matrix in matrices.items():
        if not matrix.path or _SHARE * images < len(matrix.keys):
            continue
        try:
            held = derived(
                tables[name].location,
                functools.partial(halves_path, matrix),
                functools.partial(build_halves, matrix),
                map_halves,
            )
        except OSError as error:  # also of reading: the search does without
            logger.info("%s has no copy in float16: %s", matrix.path, error)
            continue
        if held is not None:
            found[name] = Halves(*held)
    return found


def mapped(table: Table) -> Matrix:
    """All vectors of a table with their keys.

    Raises:
        CorruptPart: a part cannot be read, and no matrix was made yet.
    """
    found = derived(
        table.location,
        lambda: matrix_path(table),
        lambda home, path: build_matrix(table, home, path),
        map_matrix,
    )
    return held_matrix(table) if found is None else found


def derived(
    location: Location,
    path_of: Callable[[], str],
    make: Callable[[Location, str], None],
    read: Callable[[Location, str], T],
) -> T | None:
    """What a derived file of a root holds; None where no place can hold it.

    Args:
        location: The root.
        path_of: Where the file lies below a home now (see `matrix_homes`).
        make: Makes it.
        read: Reads it, once it is known to be whole.
    """
    for _ in range(_TRIES):
        path = path_of()
        try:
            for home in matrix_homes(location):
                if _kept(home, path, functools.partial(make, home, path)):
                    return read(home, path)
            return None
        except (Changed, FileNotFoundError):  # a part was added, or another process cleaned up
            continue
    return None


def matrix_homes(location: Location) -> Iterator[Location]:
    """Where matrices of a root may lie, the best place first."""
    if location.is_local:
        yield location
    if (folder := _matrices_of_users_cache()) is not None:
        yield Location(str(folder / sha256_hex(location.root.encode())[:20]))


def cached_matrix_homes() -> list[Location]:
    """Where matrices of any root lie in the user's cache, also of roots that are gone."""
    folder = _matrices_of_users_cache()
    if folder is None or not folder.is_dir():
        return []
    return [Location(str(home)) for home in sorted(folder.iterdir()) if home.is_dir()]


def _matrices_of_users_cache() -> Path | None:
    try:
        return user_cache_folder() / "matrices"
    except RuntimeError:  # the user has no home folder
        return None


def _kept(home: Location, path: str, make: Callable[[], None]) -> bool:
    """Whether a derived file is there, or was made now; false where no place can hold it."""
    try:
        if home.exists(path) and not _is_whole(home, path):
            logger.warning("%s is damaged; it is made again", home.join(path))
            home.remove(path)
        if not home.exists(path):
            remove_staged(home)  # what a killed builder left is as large as a matrix
            make()
        return _is_whole(home, path)
    except OSError as error:
        if takes_no_file(error):
            logger.info("%s cannot keep %s: %s", home, path, error)
            return False
        raise


def _is_whole(home: Location, path: str) -> bool:
    """Whether a matrix is what was written; checked again when its file has changed."""
    file = home.join(path)
    status = os.stat(file)
    state: dict[str, Json] = {
        "size": status.st_size,
        "place": f"{status.st_dev} {status.st_ino}",
        "changed": f"{status.st_mtime_ns} {status.st_ctime_ns}",
    }
    if recall("matrices", file, state) is True:
        return True
    whole = not fault_of(home, path)
    if whole:
        remember("matrices", file, state, True)
    return whole
