"""Which of a benchmark's images are on disk: probing, coverage, and the refusal of gaps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from storage.benchmarks.errors import MissingImages
from storage.benchmarks.parsing import listing
from storage.benchmarks.records import Benchmark
from storage.tables.keys import JsonValue
from storage.words import agreed


@dataclass(frozen=True, slots=True)
class ImageCoverage:
    """How many of the needed images were found, and the first names of missing ones."""

    needed: int
    found: int
    first_missing: tuple[str, ...]

    def as_json(self) -> dict[str, JsonValue]:
        """The coverage as it is recorded in a result's protocol."""
        return {
            "needed": self.needed,
            "found": self.found,
            "first_missing": self.first_missing,
        }


def needed_images(benchmark: Benchmark) -> tuple[str, ...]:
    """Distinct image names of the galleries, then of references outside them, in order."""
    names: dict[str, None] = {}
    for gallery in benchmark.galleries.values():
        names.update(dict.fromkeys(gallery))
    names.update(dict.fromkeys(query.reference for query in benchmark.queries))
    return tuple(names)


def locate_images(benchmark: Benchmark) -> Benchmark:
    """The benchmark with ``image_paths``, ``missing`` and the protocol's coverage filled in.

    Each folder is listed once, however many images it should hold; nothing is opened.
    """
    found = _existing(benchmark.image_candidates)
    needed = needed_images(benchmark)
    paths = {name: found[name] for name in needed if name in found}
    missing = tuple(name for name in needed if name not in found)
    coverage = ImageCoverage(len(needed), len(paths), missing[:5]).as_json()
    return replace(
        benchmark,
        image_paths=paths,
        missing=missing,
        protocol={**benchmark.protocol, "image_coverage": coverage},
    )


def image_coverage(benchmark: Benchmark) -> ImageCoverage:
    """Coverage of a benchmark from ``locate_images``."""
    found = len(benchmark.image_paths)
    return ImageCoverage(found + len(benchmark.missing), found, benchmark.missing[:5])


def require_images(benchmark: Benchmark, *, allow_missing: bool = False) -> Benchmark:
    """Return the benchmark unchanged if its images can be encoded; no file is looked at.

    A gap may be allowed explicitly: the absent images then cannot be retrieved, and queries
    whose target is absent stay in the denominator as misses.

    Raises:
        MissingImages: with found/needed, the first names, and the next step.
    """
    for category, gallery in benchmark.galleries.items():
        if not gallery:
            raise MissingImages(
                f"{benchmark.name} {benchmark.split}: the gallery {category!r} is unknown, so it "
                "cannot be encoded (a predictions file can still be scored). "
                f"Listing: {benchmark.protocol.get('gallery_listing', 'empty')}."
            )
    coverage = image_coverage(benchmark)
    if coverage.found == 0 or (coverage.found < coverage.needed and not allow_missing):
        absent = coverage.needed - coverage.found
        tried = benchmark.image_candidates.get(coverage.first_missing[0], ())
        remedy = (
            "Or allow gaps (allow_missing_images=true): absent targets then count as misses."
            if coverage.found
            else "Nothing was found, so gaps cannot be allowed."
        )
        raise MissingImages(
            f"{benchmark.name} {benchmark.split}: {coverage.found} of {coverage.needed} "
            f"{agreed(coverage.needed, 'image')} found, {absent} missing, first "
            f"{listing(coverage.first_missing)}. Put {agreed(absent, 'it', 'them')} in the "
            f"published layout (the first was looked for at {' or '.join(tried)}). {remedy}"
        )
    return benchmark


def _existing(candidates: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """First existing file of each name; every parent folder is listed exactly once."""
    folders: dict[str, frozenset[str]] = {}
    found: dict[str, str] = {}
    for name, paths in candidates.items():
        for path in paths:
            folder, file_name = os.path.split(path)
            if folder not in folders:
                folders[folder] = _file_names(Path(folder))
            if file_name in folders[folder]:
                found[name] = path
                break
    return found


def _file_names(folder: Path) -> frozenset[str]:
    if not folder.is_dir():
        return frozenset()
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries if entry.is_file())
