"""What the card reaches: matrix products in each precision, and copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import torch

from bench.gpu.case import Case
from bench.gpu.timing import Clock

DTYPES: Final = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "tf32": torch.float32,
    "fp32": torch.float32,
}
_SIDE: Final = 8192
_COPIED: Final = 2**31
"""Bytes of each of the two buffers of a copy, far beyond any cache."""
_TURNS: Final = 7


def measure(case: Case) -> Iterator[dict[str, float]]:
    """Limit by limit, the best of some turns: what a limit is, no measurement exceeds."""
    side, copied = (128, 2**20) if case.small else (_SIDE, _COPIED)
    clock = Clock(case.device)
    for name, dtype in DTYPES.items():
        if name == "tf32" and case.device.type != "cuda":
            continue
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        yield {f"matmul {name}": 2.0 * side**3 / _product(clock, dtype, side, case)}
    yield {"copy": 2.0 * copied / _copy(clock, copied, case)}
    if case.device.type == "cuda":
        yield {"upload": copied / 4 / _upload(clock, copied // 4, case)}


def _product(clock: Clock, dtype: torch.dtype, side: int, case: Case) -> float:
    """Seconds of one product of random square matrices; zeros would run faster than data does."""
    left, right = (torch.randn(side, side, device=case.device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return _best(clock, lambda: torch.mm(left, right, out=out), case)


def _copy(clock: Clock, size: int, case: Case) -> float:
    """Seconds of one copy within the device's memory."""
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=case.device)
    target = torch.empty_like(source)
    return _best(clock, lambda: target.copy_(source), case)


def _upload(clock: Clock, size: int, case: Case) -> float:
    """Seconds of one copy from pinned host memory."""
    source = torch.zeros(size, dtype=torch.uint8).pin_memory()
    target = torch.empty(size, dtype=torch.uint8, device=case.device)
    return _best(clock, lambda: target.copy_(source, non_blocking=True), case)


def _best(clock: Clock, work: Callable[[], object], case: Case) -> float:
    clock.kernel_seconds(work, 1)  # libraries choose their kernels
    once = clock.kernel_seconds(work, 1)
    most = 0.002 if case.small else 0.2
    times = max(1, min(50, round(most / max(once, 1e-9))))
    turns = [clock.kernel_seconds(work, times)]
    while len(turns) < _TURNS and time.time() < case.until:
        turns.append(clock.kernel_seconds(work, times))
    return min(turns)
