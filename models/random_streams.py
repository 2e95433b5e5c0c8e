"""Torch's random numbers as a function of (seed, step), so that a resumed run draws the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

_STREAMS_PER_SEED: Final = 1_000_000_007


def stream_seed(seed: int, step: int) -> int:
    """Torch's seed for a step of a run; another step or seed has another one."""
    return (seed * _STREAMS_PER_SEED + step) % 2**63


@contextmanager
def random_stream(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Torch's default random streams, seeded by (seed, step) inside and untouched outside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(stream_seed(seed, step))
        yield
