"""What searches of one process share: encodings of queries, open galleries, names of files."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from storage.collections.collection import Collection
from storage.collections.image_paths import ImagePaths
from storage.locations.location import Location
from tasks.galleries import OpenGallery, open_gallery

if TYPE_CHECKING:
    from models.retrieval.apart import Doubles
    from tasks.settings import Profile
    from tasks.stages.rankings import AnyGalleryFeature

T = TypeVar("T")

OWN_BYTES: Final = 256 * 2**20
"""Bytes of products of galleries' own features that are kept: 8 an image and pair of features."""
PATH_BYTES: Final = 256 * 2**20
"""Bytes of names of files that are kept: about 100 and its path for each input."""


class Held:
    """What is kept up to a number of bytes: the one used longest ago goes first, the last stays."""

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._looking = threading.Lock()  # held for a look, not while something is made

    def once(self, key: Hashable, most: int, make: Callable[[], T]) -> T:
        """The value of a key, made when it is first asked for; `nbytes` says its size."""
        with self._looking:
            if key in self._values:
                self._values.move_to_end(key)
                return cast(T, self._values[key])
        made = make()
        with self._looking:
            self._values[key] = made
            held = sum(each.nbytes for each in self._values.values())
            while held > most and len(self._values) > 1:
                held -= self._values.popitem(last=False)[1].nbytes
        return made


class Kept:
    """Things that are made once and kept while they are used.

    Args:
        most: Values of queries that are kept; the one that was used longest ago goes first.
        fresh_s: Seconds for which an open gallery is believed to be current.
    """

    def __init__(self, most: int = 64, fresh_s: float = 0.0) -> None:
        self._most = most
        self._fresh_s = fresh_s
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._products = Held()
        self._paths = Held()
        self._current: dict[Hashable, tuple[float, Any]] = {}
        self._looking = threading.Lock()
        self._making = threading.RLock()  # models answer one at a time
        self._opening = threading.RLock()  # pages do not wait for models
        self.made = 0
        self.found = 0

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a query, made when it is first asked for."""
        with self._looking:
            if key in self._values:
                return self._taken(key)
        with self._making:
            with self._looking:
                if key in self._values:  # another thread made it meanwhile
                    return self._taken(key)
            value = make()
            with self._looking:
                self.made += 1
                self._values[key] = value
                while len(self._values) > self._most:
                    self._values.popitem(last=False)
            return value

    def _taken(self, key: Hashable) -> Any:
        self.found += 1
        self._values.move_to_end(key)
        return self._values[key]

    def gallery(
        self, profile: Profile, collection: str, stages: Mapping[str, AnyGalleryFeature]
    ) -> tuple[Collection, OpenGallery]:
        """A collection and the features of its images, of one moment; see `open_gallery`.

        Raises:
            UnknownCollection: there is none of this name.
            IncompleteTable: more images lack one than the profile allows.
        """
        root, gaps, search = profile.root, profile.allow_gaps, profile.search

        def make() -> tuple[Collection, OpenGallery]:
            while True:
                before = Collection.open(Location(root), collection)
                opened = open_gallery(stages, stages, gaps, search)
                if Collection.open(Location(root), collection) == before:
                    return before, opened

        marks = (collection, gaps, search, *(each.model_dump_json() for each in stages.values()))
        return self.fresh((root, *marks), make)

    def own_products(self, root: str, opened: OpenGallery, one: str, other: str) -> Doubles:
        """The products of two features of each image, made once for a gallery.

        They are told by tables and images, so that other weights and a look at the gallery after a
        while make none; those that were used longest ago go first.
        """
        from models.retrieval.apart import own_products

        return self._products.once(
            (root, opened.tables[one], opened.tables[other], opened.images),
            OWN_BYTES,
            lambda: own_products(opened.features[one], opened.features[other]),
        )

    def paths(self, listed: Collection) -> ImagePaths:
        """Where the images of a listing came from: a listing never changes, so it is read once."""
        key = (listed.location, listed.listing, listed.sources.spec_key)
        with self._opening:  # many who ask at once read it once
            return self._paths.once(key, PATH_BYTES, listed.paths)

    def paths_of(
        self, listed: Collection, image_ids: Sequence[str]
    ) -> Mapping[str, tuple[str, ...]]:
        """The files of some images of a collection; those of one search alone are not kept."""
        if not self._fresh_s:
            return listed.paths_of(image_ids)
        return self.paths(listed).find(image_ids)

    def collection(self, root: str, name: str) -> Collection:
        """A collection, for the names of its images.

        Raises:
            UnknownCollection: there is none of this name.
        """
        return self.fresh((root, name), lambda: Collection.open(Location(root), name))

    def fresh(self, key: Hashable, make: Callable[[], T]) -> T:
        """A value that is made again when it is `fresh_s` seconds old."""
        since, value = self._current.get(key, (0.0, None))
        if value is not None and time.monotonic() - since < self._fresh_s:
            return cast(T, value)
        with self._opening:
            since, value = self._current.get(key, (0.0, None))
            if value is None or time.monotonic() - since >= self._fresh_s:
                value = make()
                if self._fresh_s:
                    self._current[key] = (time.monotonic(), value)
        return cast(T, value)
