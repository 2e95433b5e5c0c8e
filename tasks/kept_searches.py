"""What searches of one process share: encodings of queries, open galleries, listed names."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from storage.collections.collection import Collection
from storage.locations.location import Location
from tasks.galleries import OpenGallery, open_gallery

if TYPE_CHECKING:
    from models.retrieval.apart import Doubles
    from tasks.stages.rankings import AnyGalleryFeature

T = TypeVar("T")

OWN_BYTES: Final = 256 * 2**20
"""Bytes of products of galleries' own features that are kept: 8 an image and pair of features."""


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
        self._products: OrderedDict[Hashable, Doubles] = OrderedDict()
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
        self, collection: str, stages: Mapping[str, AnyGalleryFeature], allow_gaps: float
    ) -> OpenGallery:
        """The features of a gallery; see `open_gallery`.

        Raises:
            IncompleteTable: more images lack one than `allow_gaps` allows.
        """
        marks = (collection, allow_gaps, *(each.model_dump_json() for each in stages.values()))
        return self.fresh(marks, lambda: open_gallery(stages, stages, allow_gaps))

    def own_products(self, root: str, opened: OpenGallery, one: str, other: str) -> Doubles:
        """The products of two features of each image, made once for a gallery.

        They are told by tables and images, so that other weights and a look at the gallery after a
        while make none; those that were used longest ago go first.
        """
        from models.retrieval.apart import own_products

        key = (root, opened.tables[one], opened.tables[other], opened.images)
        with self._looking:  # a search does not wait for another one's models
            if key in self._products:
                self._products.move_to_end(key)
                return self._products[key]
        made = own_products(opened.features[one], opened.features[other])
        with self._looking:
            self._products[key] = made
            held = sum(each.nbytes for each in self._products.values())
            while held > OWN_BYTES and len(self._products) > 1:
                held -= self._products.popitem(last=False)[1].nbytes
        return made

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
