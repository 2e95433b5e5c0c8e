"""What mapping networks learn from, as arrays with a row for each image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from models.training.array_data import ArrayData
from models.training.settings import CommonTraining


def learner_data(
    arrays: Mapping[str, np.ndarray[Any, Any]],
    held_out: int,
    settings: CommonTraining,
    workers: int = 0,
) -> ArrayData:
    """Training and held-out rows.

    Args:
        arrays: By name, each (N, ...).
        held_out: How many of the first rows validate.
        settings: Of the training.
        workers: Threads that make batches ahead.
    """
    rows = {name: torch.from_numpy(np.ascontiguousarray(own)) for name, own in arrays.items()}
    held, rest = slice(0, held_out), slice(held_out, None)
    return ArrayData(
        {name: own[rest] for name, own in rows.items()},
        {name: own[held] for name, own in rows.items()},
        settings,
        workers,
    )
