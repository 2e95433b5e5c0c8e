"""How learning rates change over the steps of a run."""

from __future__ import annotations

import math


def rate_factor(step: int, total: int, warmup: float, falls: bool = True) -> float:
    """The learning rate of a step as a share of its highest value.

    It rises linearly over the first `ceil(warmup * total)` steps, which ends at 1, then falls as
    half a cosine that reaches 0 behind the last step, or stays.

    Args:
        step: Optimiser steps taken so far.
        total: Optimiser steps in all.
        warmup: Share of the steps with a rising rate.
        falls: Whether the rate falls after the warm-up.
    """
    rising = math.ceil(warmup * total)
    if step < rising:
        return (step + 1) / rising
    if not falls:
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - rising) / max(1, total - rising))))
