"""Trained networks: checkpoints that others published, as folders that profiles name, and back."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from deployments.errors import UserError
from models.composed.registry import SYSTEMS

_PUBLISHED: Final = [name for name, record in SYSTEMS.items() if record.published is not None]

IMPORT: Final = f"""Read a published checkpoint of a system, and write it as a folder of our own.

example: rank with CLIP4CIR's files tuned_clip_best.pt and combiner_arithmetic.pt in published/

  cirflow import network clip4cir published --out networks/clip4cir \\
      --not-zero-shot "trained on CIRR's train split"
  cirflow run score-benchmark --set benchmark=cirr --set split=val --set folder=CIRR \\
      --set 'methods=["clip4cir"]' --set composed.clip4cir=networks/clip4cir

Every weight must have its place: what is missing, unknown or of another shape is named. Nothing in
the file is run. No file tells what it was trained on, so say whether results are zero-shot.

systems: {", ".join(_PUBLISHED)}"""


def add_import(parser: argparse.ArgumentParser) -> None:
    """Options of `cirflow import network`."""
    parser.add_argument("system", help="see below")
    parser.add_argument("source", help="the published file, or the folder of several")
    parser.add_argument("--out", required=True, help="folder to be made for the network")
    label = parser.add_mutually_exclusive_group(required=True)
    label.add_argument(
        "--zero-shot",
        action="store_true",
        help="it saw nothing of a benchmark but images without annotations",
    )
    label.add_argument("--not-zero-shot", metavar="REASON", default="", help="why it is not")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the system where it is not its paper's, such as mask=eval_as_torch",
    )


def run_import(arguments: argparse.Namespace) -> int:
    """Import, and say what was taken."""
    from models.composed.registry import require_importable, system
    from models.network_folders import require_new

    record = system(arguments.system)
    settings = record.settings.given(dict(map(_setting, arguments.set)), record.title)
    source, out = Path(arguments.source), Path(arguments.out)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; give a published checkpoint")
    if not arguments.zero_shot and not arguments.not_zero_shot.strip():
        raise UserError("--not-zero-shot is a reason in words, which every table shows")
    if not (source.stat().st_size if source.is_file() else any(source.iterdir())):
        raise UserError(f"{source} is empty; give a published checkpoint")
    require_importable(record.name)
    record.require_published(source)
    require_new(out)
    from models.composed.published import bring_in  # PyTorch, which what is refused above needs not

    found = bring_in(record.name, source, out, settings, arguments.not_zero_shot.strip())
    for name, sha256 in found["sha256"].items():
        print(f"{name}: sha256 {sha256}")
    print(f"{found['weights']:,} weights, vectors of width {found['dim']}: {out}")
    print(f"use it with --set composed.{record.name}={out}")
    return 0


EXPORT: Final = """Write a tuned embedding model as a checkpoint that transformers and servers read.

example: serve what was tuned here, or rank with it as an embedder

  cirflow export network networks/tuned --out checkpoint

What is printed are the settings under which the checkpoint gives the same vectors."""


def add_export(parser: argparse.ArgumentParser) -> None:
    """Options of `cirflow export network`."""
    parser.add_argument("folder", help="of a tuned-embedding, trained or imported here")
    parser.add_argument("--out", required=True, help="folder to be made for the checkpoint")


def run_export(arguments: argparse.Namespace) -> int:
    """Export, and say how the checkpoint is to be used."""
    if not Path(arguments.folder).is_dir():  # before PyTorch is imported
        raise UserError(
            f"{arguments.folder}: no such folder; give that of a tuned-embedding, such as one of "
            "ROOT/checkpoints/composed/"
        )
    from models.composed.folder import read_config
    from models.composed.tuned_embedding import SYSTEM
    from models.network_folders import require_new

    if (own := read_config(arguments.folder)["system"]) != SYSTEM.name:
        raise UserError(
            f"{arguments.folder} is a network of {own}; only one of {SYSTEM.name} is a "
            "checkpoint of transformers"
        )
    require_new(Path(arguments.out))
    from models.composed.checkpoint import load_composed
    from models.embedders.tuned_network import EmbeddingNetwork
    from models.network_weights import new_folder

    loaded = load_composed(arguments.folder)
    assert isinstance(loaded.network, EmbeddingNetwork)
    out = new_folder(arguments.out, "fp32")
    loaded.network.save_pretrained(out)
    print(f"use it with --set embedder.engine=chat-embedder --set embedder.model={out}")
    for name, value in loaded.network.as_embedder().items():
        print(f"    --set embedder.{name}={json.dumps(value)}")
    return 0


def _setting(given: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise UserError(f"{given!r} is not NAME=VALUE, a setting of the system with its value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
