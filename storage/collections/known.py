"""Which collections there are, without reading any of their rows: quick to import and to ask."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from storage.locations.location import Location

SHOWN = 80
"""Characters of an unknown name, and known names, that a refusal repeats."""
_KEY = re.compile(r"[0-9a-f]{8,64}")

IfTaken = Literal["refuse", "replace", "add"]
"""What to do where a name stands for other images: refuse, stand for these instead, or for both."""

Layout = Literal["files", "fashion200k", "nlvr2"]
"""What a folder is: images of any kind, or a published set whose label files say what it holds."""


class UnknownCollection(LookupError):
    """There is no collection of a name; the message lists the collections that exist."""


@dataclass(frozen=True)
class Listing:
    """A published listing: its key, and the spec key of the `sources` table of its rows."""

    key: str
    sources: str

    def __post_init__(self) -> None:
        if not all(
            isinstance(key, str) and _KEY.fullmatch(key) for key in (self.key, self.sources)
        ):
            raise ValueError(f"it names the listing {self.key!r} of sources/{self.sources!r}")


def check_name(name: str) -> None:
    """Refuse a text that cannot be the name of a collection.

    Raises:
        ValueError: says which names are allowed.
    """
    letters = name.replace("-", "").replace("_", "").replace(".", "")
    if not (letters.isalnum() and name.isascii() and name[0].isalnum() and len(name) <= 128):
        raise ValueError(
            f"{_brief(name)!r} is not a name for a collection: use up to 128 letters, digits, "
            "'.', '_' and '-', beginning with a letter or digit"
        )


def _brief(name: str) -> str:
    return name if len(name) <= SHOWN else f"{name[:SHOWN]}..."


def pointer_path(name: str) -> str:
    """Path of the file that says which listing a name stands for."""
    return f"collections/{name}.json"


def list_collections(location: Location) -> list[str]:
    """The names of all collections, sorted."""
    paths = [path.removeprefix("collections/") for path in location.list("collections")]
    return [path[: -len(".json")] for path in paths if "/" not in path and path.endswith(".json")]


def unknown_collection(location: Location, name: str) -> UnknownCollection:
    """The error for a name that no collection has: the nearest one, and all that exist."""
    known = list_collections(location)
    name = _brief(name)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = ", ".join([*known[:SHOWN], *["..."] * (len(known) > SHOWN)]) or "none yet"
    return UnknownCollection(
        f"there is no collection {name!r} at {location}; {hint}there are: {shown}. Make it with "
        f"`cirflow ingest SOURCE --name {name}`, or name the root of its tables "
        '(--set root=ROOT; in a form, settings {"root": "ROOT"})'
    )


def require_collection(location: Location, name: str) -> None:
    """Refuse a name that no collection has; costs one look at a file.

    Raises:
        ValueError: the text cannot be a name.
        UnknownCollection: the name is unknown.
    """
    check_name(name)
    if not location.exists(pointer_path(name)):
        raise unknown_collection(location, name)
