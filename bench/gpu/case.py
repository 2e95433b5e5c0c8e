"""What every part is told: device, size, and when to stop."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

import torch

from bench.gpu.records import Dtype


@dataclass(frozen=True, slots=True)
class Case:
    """One part's process.

    Attributes:
        device: Where the work runs.
        small: Small shapes, which a CPU does in seconds.
        until: `time.time()` at which the part should have ended.
    """

    device: torch.device
    small: bool
    until: float

    @property
    def half(self) -> Literal["bf16", "fp32"]:
        """Precision of the models: bf16 on a GPU."""
        return "bf16" if self.device.type == "cuda" else "fp32"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The same as torch's value."""
        return torch.bfloat16 if self.half == "bf16" else torch.float32

    @property
    def full(self) -> Dtype:
        """Precision that products of float32 run in: TF32 where torch was told so."""
        tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
        return "tf32" if tf32 and self.device.type == "cuda" else "fp32"

    @property
    def left(self) -> float:
        """Seconds until it should have ended."""
        return max(0.0, self.until - time.time())

    def for_the_next(self, cases: int) -> float:
        """`time.time()` at which one of so many equal cases should have ended."""
        return time.time() + self.left / cases

    def until_earlier(self, until: float) -> Case:
        """The same with an earlier end."""
        return replace(self, until=min(until, self.until))
