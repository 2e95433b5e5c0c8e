"""Parameters of the flow `train-reformulation` that fit the small network."""

from collections.abc import Mapping
from typing import Any, Final

EMBEDDED_TRAINING: Final[Mapping[str, Any]] = {
    "batch_size": 256,
    "learning_rate": 5e-4,
    "new_learning_rate": 1e-3,
    "loss": {"temperature": 0.03},
    "training": {"class_grouping": 8, "max_steps": 750, "saved_as": "fp16", "keep": "last"},
}
"""All other parameters keep the flow's defaults. After 250 steps the effect of cross-attention
cannot be seen yet (docs/benchmarks.md)."""
