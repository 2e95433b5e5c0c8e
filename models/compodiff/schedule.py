"""CompoDiff's noise: the cosine schedule, noising, and the times that the sampler visits."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import nn

_OFFSET: Final = 0.008
_LARGEST_BETA: Final = 0.999


class NoiseSchedule(nn.Module):
    """abar_t = cos^2((t / T + .008) / 1.008 * pi / 2), betas at most .999 (Nichol, Dhariwal 2021).

    Attributes:
        steps: T.
        kept: (T,) abar_t: the share of the feature's variance that is left at step t.
        kept_before: (T,) abar_{t-1}, 1 at t = 0.
    """

    kept: torch.Tensor
    kept_before: torch.Tensor
    _signal: torch.Tensor
    _noise: torch.Tensor

    def __init__(self, steps: int) -> None:
        """Compute the schedule in fp64 and keep it in fp32, outside of the state."""
        super().__init__()
        self.steps = steps
        place = torch.arange(steps + 1, dtype=torch.float64) / steps
        curve = torch.cos((place + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2
        betas = (1 - curve[1:] / curve[:-1]).clamp(0, _LARGEST_BETA)
        kept = torch.cumprod(1 - betas, dim=0)
        for name, values in (
            ("kept", kept),
            ("kept_before", torch.cat((kept.new_ones(1), kept[:-1]))),
            ("_signal", kept.sqrt()),
            ("_noise", (1 - kept).sqrt()),
        ):
            self.register_buffer(name, values.float(), persistent=False)

    def noised(self, x0: torch.Tensor, times: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise; x0, noise (B, d), times (B,) int64."""
        return self._signal[times, None] * x0 + self._noise[times, None] * noise

    def noise_in(self, noisy: torch.Tensor, time: int, x0: torch.Tensor) -> torch.Tensor:
        """The noise that makes `noisy` of `x0` at a time; all (B, d)."""
        return (noisy - self._signal[time] * x0) / self._noise[time]


def sampler_times(total: int, calls: int) -> list[int]:
    """Times from high to low that a sampler visits; -1 stands behind the last and is x0 itself.

    Args:
        total: Steps T of the schedule.
        calls: Evaluations of the network, one for each pair of neighbouring times.

    Raises:
        ValueError: More calls than the schedule has steps, or none.
    """
    if not 1 <= calls < total:
        raise ValueError(f"a sampler makes 1 to {total - 1} calls of the network, not {calls}")
    visited = torch.linspace(-1.0, total, calls + 2)[:-1]
    return list(reversed(visited.int().tolist()))
