"""Named sources: folders of published image sets, whose own files say what belongs to them.

Such a source holds the images that its label files name, present or not, in the classes that they
say. Nothing else in the folder is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from storage.collections.known import Layout
from storage.collections.sources import fashion200k, nlvr2
from storage.collections.sources.candidates import SourceFault
from storage.collections.sources.files import SourceFile
from storage.collections.sources.named import LabelFault, Named
from storage.locations.location import Location
from storage.words import agreed

MISSING = "missing_file"
"""Status of an image that is named and not there."""


class Reader(Protocol):
    """Reads a source's label files."""

    def __call__(self, files: Sequence[SourceFile]) -> tuple[list[Named], list[str]]:
        """The images that are named, and notes on their counts."""


READERS: Mapping[Layout, Reader] = {
    "fashion200k": fashion200k.named_images,
    "nlvr2": nlvr2.named_images,
}


@dataclass(frozen=True)
class Listed:
    """The inputs of a source, and what its label files say about their number."""

    files: list[SourceFile]
    notes: tuple[str, ...] = ()


def listed_as(layout: Layout, source: Location, files: list[SourceFile]) -> Listed:
    """The inputs of a source: all its files, or those that its label files name.

    Raises:
        LabelFault: the label files are absent or not of this layout, or none of their images is
            there.
    """
    if layout == "files":
        return Listed(files)
    named, notes = READERS[layout](files)
    found = {file.raw_path: file for file in files}
    listed = [_input(source, each, found) for each in _distinct(named)]
    missing = sum(file.problem is not None and file.problem.status == MISSING for file in listed)
    images = f"{len(listed):,} {agreed(len(listed), 'image')}"
    if missing == len(listed):
        raise LabelFault(
            f"none of the {images} that the label files of {source} name is there, "
            f"such as {listed[0].raw_path}; unpack the images into that folder"
        )
    counts = f"{images} named, {len(listed) - missing:,} there, {missing:,} missing"
    return Listed(sorted(listed, key=lambda file: file.path), (*notes, counts))


def _distinct(named: Iterable[Named]) -> Iterable[Named]:
    return {(each.path, each.meta_class): each for each in named}.values()


def _input(source: Location, named: Named, found: Mapping[str, SourceFile]) -> SourceFile:
    """The file of a named image; its stamp holds the class, which the file itself does not."""
    file = found.get(named.path)
    if file is None:
        fault = SourceFault(MISSING, f"{named.said_by} names it, and it is not there")
        file = SourceFile(source, named.path, 0, "missing", fault)
    return replace(file, stamp=f"{file.stamp}:{named.meta_class}", meta_class=named.meta_class)
