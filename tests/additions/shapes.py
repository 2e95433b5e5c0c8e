"""Shapes: a small benchmark in CIRCO's layout, with metrics, columns and hidden targets of its own.

Its prompts and fusion weights are CIRCO's; no paper knows it.
"""

from __future__ import annotations

from storage.benchmarks.circo import PREDICTIONS, circo_submission, load_circo
from storage.benchmarks.facts import BenchmarkFacts, Metrics, Split

BENCHMARK = BenchmarkFacts(
    name="shapes",
    title="Shapes",
    load=load_circo,
    splits=(Split(name="val"), Split(name="test", targets=False)),
    metrics=Metrics(main="map@3", average_precisions=(3, 10), recalls=(1,)),
    columns=("map@3", "recall@1"),
    terminal_columns={"map@3": "mAP@3", "recall@1": "R@1"},
    predictions=PREDICTIONS,
    submission=circo_submission,
    family="circo",
)
