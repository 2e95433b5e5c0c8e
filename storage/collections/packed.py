"""Decoded pictures in one file that all processes of a host map, so that they share its pages.

The file holds the pixels of one picture after the other, then an index (JSON), then the length of
the index and a hash of all that stands before it. It is derived: a file that is missing, cut or
damaged is written again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""(H, W, 3)."""

_LENGTH: Final = 8
_HASH: Final = 32
_READ: Final = 2**23


@dataclass(frozen=True)
class PackedPictures:
    """Pictures of a file.

    Attributes:
        pixels: All bytes of the file, mapped for reading.
        places: Image id -> where its pixels begin, their height and their width.
        problems: Image id -> why it cannot be read.
    """

    pixels: npt.NDArray[np.uint8]
    places: Mapping[str, tuple[int, int, int]]
    problems: Mapping[str, str]

    def among(self, image_ids: Iterable[str]) -> dict[str, Pixels]:
        """Those of some pictures that are packed; their pixels cannot be written to."""
        found = {name: self.places[name] for name in image_ids if name in self.places}
        return {name: self._at(*place) for name, place in found.items()}

    def _at(self, start: int, height: int, width: int) -> Pixels:
        return self.pixels[start : start + 3 * height * width].reshape(height, width, 3)


def pack(file: Path, pictures: Iterable[tuple[str, Pixels | str]], room: int) -> None:
    """Write a file and put it into its place at once.

    Args:
        file: Its place.
        pictures: Image ids with their pixels, or with the reason why there are none. They are read
            until the pixels do not fit any more.
        room: Most bytes of pixels.
    """
    staged = file.with_name(f".{file.name}.new")
    places: dict[str, tuple[int, int, int]] = {}
    problems: dict[str, str] = {}
    end, digest = 0, hashlib.sha256()
    with staged.open("wb") as out:

        def write(data: Any) -> None:
            digest.update(data)
            out.write(data)

        for image_id, found in pictures:
            if isinstance(found, str):
                problems[image_id] = found
                continue
            if found.nbytes > room - end:
                break
            write(np.ascontiguousarray(found).data)
            places[image_id] = (end, *found.shape[:2])
            end += found.nbytes
        index = json.dumps({"places": places, "problems": problems}).encode()
        write(index)
        write(len(index).to_bytes(_LENGTH, "little"))
        out.write(digest.digest())
    os.replace(staged, file)


def open_packed(file: Path) -> PackedPictures | None:
    """Map a file whose bytes have their hash; None where it is missing, cut or damaged."""
    if not file.is_file() or file.stat().st_size < _LENGTH + _HASH:
        return None
    pixels = np.memmap(file, np.uint8, "r").view(np.ndarray)
    content, digest = pixels[:-_HASH], hashlib.sha256()
    for start in range(0, len(content), _READ):
        digest.update(content[start : start + _READ].data)
    if digest.digest() != pixels[-_HASH:].tobytes():
        return None
    length = int.from_bytes(content[-_LENGTH:].tobytes(), "little")
    index = json.loads(content[-_LENGTH - length : -_LENGTH].tobytes())
    places = {
        name: (int(at), int(high), int(wide)) for name, (at, high, wide) in index["places"].items()
    }
    return PackedPictures(pixels, places, index["problems"])
