"""Score a predictions file without images, models or Prefect.

Predictions are in the benchmark's submission form. CIRR: the recall or the recall_subset file;
CIRCO: {"0": [ids], ...}; FashionIQ: {category: {query index: [image names]}}."""

from __future__ import annotations

import argparse
import json

from deployments.errors import UserError
from models.spelling import unknown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--benchmark", required=True, help="its name, such as cirr")
    parser.add_argument("--split", required=True, help="a split with public targets, such as val")
    parser.add_argument("--annotations", required=True, help="the benchmark's folder")
    parser.add_argument("--predictions", required=True, help="JSON file")
    parser.add_argument("--json", action="store_true", help="print metric -> percent as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Score and print."""
    from storage.benchmarks.registry import BENCHMARKS
    from tasks.scoring.predictions import score_with_protocol

    if arguments.benchmark not in BENCHMARKS:
        raise UserError(unknown("benchmark", arguments.benchmark, BENCHMARKS))
    splits = [split.name for split in BENCHMARKS[arguments.benchmark].splits]
    if arguments.split not in splits:
        raise UserError(unknown(f"split of {arguments.benchmark}", arguments.split, splits))
    scores = score_with_protocol(
        arguments.benchmark, arguments.split, arguments.annotations, arguments.predictions
    )
    if arguments.json:
        print(json.dumps(dict(scores.metrics)))
        return 0
    width = max(map(len, scores.metrics))
    for name, value in scores.metrics.items():
        print(f"{name:{width}}  {value:6.2f}")
    for name, choice in scores.protocol.items():
        print(f"# {name}: {json.dumps(choice, default=list)}")
    return 0
