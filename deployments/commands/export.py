"""Write captions, edits, objects, triplets, vectors and predictions in the forms that others read.

examples:

  cirflow export texts --benchmark circo --split val --folder CIRCO --form ldre --out val.json
  cirflow export texts --benchmark circo --split val --folder CIRCO --texts KEY --out texts.jsonl

The first writes what was made under a profile, the second what was imported."""

from __future__ import annotations

import argparse

from deployments.exchange.kinds import add_kinds, run_kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subcommand for each kind."""
    add_kinds(parser, "export")


def run(arguments: argparse.Namespace) -> int:
    """Export, and say what was written."""
    return run_kind(arguments, "export")
