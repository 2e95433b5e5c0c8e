"""The benchmarks by name. A new one is a file in this folder and a line in `NAMES`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from storage.benchmarks.errors import BenchmarkError
from storage.benchmarks.facts import BenchmarkFacts
from storage.benchmarks.images import locate_images, require_images
from storage.benchmarks.parsing import listing
from storage.benchmarks.records import Benchmark

NAMES: Final = (
    "cirr",
    "circo",
    "fashioniq",
    "icir",
    "genecis",
    "lasco",
    "pinpoint",
)
"""Each benchmark's name and file: `storage/benchmarks/NAME.py` holds its `BENCHMARK`."""

BENCHMARKS: Final[Mapping[str, BenchmarkFacts]] = MappingProxyType(
    {name: importlib.import_module(f"storage.benchmarks.{name}").BENCHMARK for name in NAMES}
)

FAMILIES: Final = tuple(dict.fromkeys(facts.family for facts in BENCHMARKS.values()))
"""The benchmark families, whose prompts and fusion weights a profile may set."""


def benchmark_facts(name: str) -> BenchmarkFacts:
    """The record of a benchmark.

    Raises:
        BenchmarkError: The name is unknown; the known ones are listed.
    """
    if name not in BENCHMARKS:
        raise BenchmarkError(f"No benchmark {name!r}. Known: {listing(sorted(BENCHMARKS))}.")
    return BENCHMARKS[name]


def protocol_options(name: str) -> tuple[str, ...]:
    """The protocol switches of one benchmark (the loader's keyword arguments)."""
    parameters = inspect.signature(benchmark_facts(name).load).parameters.values()
    return tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)


def excludes_reference(name: str) -> bool:
    """Whether a benchmark's own protocol takes a query's reference out of its ranking."""
    facts = benchmark_facts(name)
    switch = inspect.signature(facts.load).parameters.get("exclude_reference")
    default = False if switch is None else bool(switch.default)
    return bool(facts.options.get("exclude_reference", default))


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
    facts = benchmark_facts(name)
    known = protocol_options(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise BenchmarkError(
            f"{name} has no protocol option {listing(unknown)}. Known: {listing(known)}."
        )
    root = Path(root)
    if not root.is_dir():
        raise BenchmarkError(f"{root}: no such folder. Give the folder of the {name} annotations.")
    loaded = facts.load(root, split, **options)
    # A loader may serve several benchmarks of one layout.
    return replace(loaded, name=name, protocol={"family": facts.family, **loaded.protocol})


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
