"""The kinds of things that are exchanged. Another one is a module here and a line in `KINDS`.

A module has `IMPORT` and `EXPORT` (texts of its help), `add_import`, `run_import`, `add_export`
and `run_export`, or only those of one way.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Final, Literal

KINDS: Final[Mapping[str, str]] = {
    "texts": "captions, edited captions and added objects of a benchmark",
    "triplets": "sets of triplets to train on: LAION-CIR, LaSCo, CoVR, MegaPairs and others",
    "features": "vectors of images, and SEARLE's pseudo tokens",
    "network": "published checkpoints of trained systems: CoVR, TransAgg, CLIP4CIR and others",
    "pictures": "reference images that were edited as a benchmark's texts ask",
    "predictions": "ranked lists of a benchmark's queries, scored into the ledger",
}
"""Kind -> a few words for the help; the module is `deployments.exchange.KIND`."""


def kind(name: str) -> ModuleType:
    """The module of a kind."""
    return importlib.import_module(f"deployments.exchange.{name}")


def add_kinds(parser: argparse.ArgumentParser, way: Literal["import", "export"]) -> None:
    """A subcommand for each kind, with the options of its way."""
    modules = {name: kind(name) for name in KINDS}
    taken = [name for name, module in modules.items() if hasattr(module, f"add_{way}")]
    chosen = parser.add_subparsers(dest="kind", metavar=f"{{{','.join(taken)}}}", required=True)
    for name in taken:
        module, words = modules[name], KINDS[name]
        own = chosen.add_parser(
            name,
            help=words,
            description=getattr(module, way.upper()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        getattr(module, f"add_{way}")(own)


def run_kind(arguments: argparse.Namespace, way: Literal["import", "export"]) -> int:
    """Do what the chosen kind does."""
    return int(getattr(kind(arguments.kind), f"run_{way}")(arguments))
