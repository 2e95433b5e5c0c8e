"""Sampling whose outcome does not depend on the batch: counter-based Gumbel noise.

A framework's random generator is consumed in batch order, so the same image alone and in a
batch gets different captions from the same seed. Here every number of noise is a pure function
of (row seed, step, token). By the Gumbel-max identity, `argmax(logits + Gumbel noise)` is an
exact draw from `softmax(logits)` (Gumbel 1954; Maddison et al. 2014, "A* Sampling", section 2),
so the draw of a row is fixed by its own seed alone. The batch decides rounding alone: a
matrix product of another shape may differ in its last bits and tip an almost exact tie.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_MIX_1: Final = 0xBF58476D1CE4E5B9 - (1 << 64)  # splitmix64's constants, as signed numbers
_MIX_2: Final = 0x94D049BB133111EB - (1 << 64)
_GAMMA: Final = 0x9E3779B97F4A7C15 - (1 << 64)
_STEP_GAMMA: Final = 0xD1B54A32D192ED03 - (1 << 64)  # another odd number, so step and token differ
_UNIFORM_BITS: Final = 52  # so that the half added to the integer is exact in a double


def gumbel_noise(seeds_R: Tensor, step: int, vocabulary: int) -> Tensor:
    """Standard Gumbel noise (R, V), float64, one stream per row.

    Args:
        seeds_R: int64 seeds, one per row; the noise lives on their device.
        step: Position of the token that is being drawn, from 0.
        vocabulary: V, the number of tokens to choose from.
    """
    steps_R = _mix(seeds_R + _wrap((step + 1) * _STEP_GAMMA))
    tokens_V = torch.arange(1, vocabulary + 1, device=seeds_R.device) * _GAMMA
    bits_RV = _logical_shift(_mix(steps_R[:, None] + tokens_V), 64 - _UNIFORM_BITS)
    uniform_RV = (bits_RV.double() + 0.5) * 2.0**-_UNIFORM_BITS  # inside (0, 1), never at its ends
    return -torch.log(-torch.log(uniform_RV))


def keep_nucleus(logits_RV: Tensor, top_p: float) -> Tensor:
    """Logits with everything outside the smallest set of mass `top_p` at minus infinity.

    The most likely token always stays (Holtzman et al. 2020, "The Curious Case of Neural Text
    Degeneration", section 3.1).
    """
    if top_p >= 1.0:
        return logits_RV
    sorted_RV, order_RV = logits_RV.sort(dim=-1, descending=True, stable=True)
    probabilities_RV = sorted_RV.softmax(dim=-1)
    mass_before_RV = probabilities_RV.cumsum(dim=-1) - probabilities_RV
    dropped_RV = mass_before_RV >= top_p
    dropped_RV[:, 0] = False
    return logits_RV.masked_fill(dropped_RV.scatter(-1, order_RV, dropped_RV), float("-inf"))


def keep_likeliest(logits_RV: Tensor, top_k: int) -> Tensor:
    """Logits with everything below the `top_k`-th largest at minus infinity; 0 keeps all."""
    if not 0 < top_k < logits_RV.shape[-1]:
        return logits_RV
    least_R1 = logits_RV.topk(top_k, dim=-1).values[:, -1:]
    return logits_RV.masked_fill(logits_RV < least_R1, float("-inf"))


def draw_tokens(
    logits_RV: Tensor,
    seeds_R: Tensor,
    step: int,
    *,
    temperature: float,
    top_p: float,
    top_k: int = 0,
) -> Tensor:
    """One token per row (R,), drawn from the nucleus of `softmax(logits / temperature)`.

    As in transformers, the nucleus is that of the `top_k` likeliest tokens.
    """
    scaled_RV = keep_nucleus(keep_likeliest(logits_RV.double() / temperature, top_k), top_p)
    return (scaled_RV + gumbel_noise(seeds_R, step, logits_RV.shape[-1])).argmax(dim=-1)


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele et al. 2014), in wrapping int64 arithmetic."""
    x = (x ^ _logical_shift(x, 30)) * _MIX_1
    x = (x ^ _logical_shift(x, 27)) * _MIX_2
    return x ^ _logical_shift(x, 31)


def _wrap(number: int) -> int:
    """A Python integer reduced to the signed 64-bit number that tensors hold."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _logical_shift(x: Tensor, bits: int) -> Tensor:
    """`x >> bits` with zeros coming in from the left; torch's own shift repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
