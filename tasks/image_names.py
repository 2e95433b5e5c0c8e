"""The images of a collection, found by the names that files of others give them."""

from __future__ import annotations

from collections.abc import Callable

from storage.exchange.sources import ExchangeError
from storage.exchange.triplet_forms import stem_of
from tasks.training.leak_guard import usable_rows


class ImageNames:
    """The images of a collection by the names that published files give them.

    Args:
        root: Root of the tables.
        collection: An ingested collection.
        name: A name without folder and ending -> what is compared.
    """

    def __init__(self, root: str, collection: str, name: Callable[[str], str] = str) -> None:
        self._name = name
        self._by_stem: dict[str, list[tuple[str, str]]] = {}
        rows = usable_rows(root, collection)
        self.classes = dict(rows.select("image_id", "meta_class").iter_rows())
        for image, path in rows.select("image_id", "path").iter_rows():
            self._by_stem.setdefault(self._name(stem_of(path)), []).append((path, image))

    def find(self, name: str) -> str | None:
        """The image of a name; None where the collection lacks it.

        A name with folders means the file below these folders, as far as they are known here.

        Raises:
            ExchangeError: several different images have the name.
        """
        if name in self.classes:
            return name
        found = self._by_stem.get(self._name(stem_of(name)), [])
        folders = [part for part in name.split("/")[:-1] if part not in ("", ".")]
        images = {image for _, image in found}
        while len(images) > 1 and folders:
            below = "/" + "/".join(folders) + "/"
            fitting = {i for path, i in found if below in f"/{path.replace('!', '/')}"}
            images, folders = fitting or images, [] if fitting else folders[1:]
        if len(images) > 1:
            raise ExchangeError(
                f"{name} may be {' or '.join(sorted(p for p, i in found if i in images)[:3])}: "
                "give a collection with one of them"
            )
        return next(iter(images), None)
