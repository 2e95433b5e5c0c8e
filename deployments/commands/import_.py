"""Read files that others made: captions and edits of a benchmark, triplets, vectors, predictions.

Ids and texts are compared with the benchmark or collection; a file that does not fit is refused
with its record named. What is imported has a key of its own and never mixes with what is made here.

example: score CIReVL and LDRE with LDRE's published edits of CIRCO, asking no model

  cirflow import texts test.json --benchmark circo --split test --folder CIRCO
  cirflow run score-benchmark --set benchmark=circo --set split=test --set folder=CIRCO \\
      --set 'methods=["cirevl","ldre"]' --set captioner.engine=imported \\
      --set captioner.texts=KEY --set generator.engine=imported --set generator.texts=KEY

KEY is what the first command prints. `cirflow import texts --help` lists the forms."""

from __future__ import annotations

import argparse

from deployments.exchange.kinds import add_kinds, run_kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subcommand for each kind."""
    add_kinds(parser, "import")


def run(arguments: argparse.Namespace) -> int:
    """Import, and say what was found."""
    return run_kind(arguments, "import")
