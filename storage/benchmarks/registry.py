"""The benchmarks by name. A new one is a file with a loader and a line here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from storage.benchmarks.circo import load_circo
from storage.benchmarks.cirr import load_cirr
from storage.benchmarks.errors import BenchmarkError
from storage.benchmarks.fashioniq import load_fashioniq
from storage.benchmarks.images import locate_images, require_images
from storage.benchmarks.parsing import listing
from storage.benchmarks.records import Benchmark

BENCHMARKS: Mapping[str, Callable[..., Benchmark]] = {
    "cirr": load_cirr,
    "circo": load_circo,
    "fashioniq": load_fashioniq,
}


def protocol_options(name: str) -> tuple[str, ...]:
    """The protocol switches of one benchmark (the loader's keyword arguments)."""
    parameters = inspect.signature(_loader(name)).parameters.values()
    return tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)


def load_annotations(name: str, root: str | Path, split: str, **options: Any) -> Benchmark:
    """One benchmark split without its images: all that scoring a predictions file needs.

    Args:
        name: A key of ``BENCHMARKS``.
        root: Folder of the benchmark in its published layout.
        split: The split's published name.
        options: Protocol switches; see the benchmark's loader.

    Raises:
        BenchmarkError: for an unknown name, split or option, or unusable files.
    """
    loader = _loader(name)
    known = protocol_options(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise BenchmarkError(
            f"{name} has no protocol option {listing(unknown)}. Known: {listing(known)}."
        )
    root = Path(root)
    if not root.is_dir():
        raise BenchmarkError(f"{root}: no such folder. Give the folder of the {name} annotations.")
    return loader(root, split, **options)


def load_benchmark(
    name: str, root: str | Path, split: str, *, allow_missing: bool = False, **options: Any
) -> Benchmark:
    """One benchmark split with its images located; gaps are refused unless allowed.

    Raises:
        MissingImages: when images are absent and ``allow_missing`` is false.
        BenchmarkError: as ``load_annotations``.
    """
    located = locate_images(load_annotations(name, root, split, **options))
    return require_images(located, allow_missing=allow_missing)


def _loader(name: str) -> Callable[..., Benchmark]:
    if name not in BENCHMARKS:
        raise BenchmarkError(f"No benchmark {name!r}. Known: {listing(sorted(BENCHMARKS))}.")
    return BENCHMARKS[name]
