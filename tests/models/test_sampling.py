"""Counter-based sampling: the right distribution, and nothing but the row's own seed matters."""

from __future__ import annotations

import hashlib
import math
import struct
from typing import TYPE_CHECKING

import pytest

from models.captioners.seeds import stream_seed

if TYPE_CHECKING:
    import torch

LOGITS = [2.0, 1.2, 0.4, 0.1, -0.5, -1.5, -3.0, 0.9]
NUM_DRAWS = 20_000


def chi_square(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Pearson's statistic over the tokens that can occur."""
    kept = probabilities > 0
    expected = probabilities[kept] * counts.sum()
    return float((((counts[kept] - expected) ** 2) / expected).sum())


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.6])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("step", [0, 7])
def test_draws_follow_the_filtered_softmax(top_p: float, temperature: float, step: int) -> None:
    import torch

    from models.captioners.sampling import draw_tokens

    seeds = torch.tensor([stream_seed("chi", index) for index in range(NUM_DRAWS)])
    logits = torch.tensor(LOGITS)
    drawn = draw_tokens(
        logits.expand(NUM_DRAWS, -1), seeds, step, temperature=temperature, top_p=top_p
    )
    # The oracle filters in plain Python, from the definition of a nucleus.
    probabilities = torch.softmax(logits.double() / temperature, dim=0).tolist()
    nucleus: list[int] = []
    for token in sorted(range(8), key=lambda token: -probabilities[token]):
        if sum(probabilities[kept] for kept in nucleus) >= top_p:
            break
        nucleus.append(token)
    mass = sum(probabilities[token] for token in nucleus)
    expected = torch.tensor(
        [p / mass if t in nucleus else 0.0 for t, p in enumerate(probabilities)]
    )
    counts = torch.bincount(drawn, minlength=8)

    assert counts[expected == 0].sum() == 0
    degrees = len(nucleus) - 1
    # Mean + 5 standard deviations of a chi-square with that many degrees of freedom.
    assert chi_square(counts, expected) < degrees + 5 * math.sqrt(2 * max(degrees, 1))


def test_noise_is_standard_gumbel() -> None:
    import torch

    from models.captioners.sampling import gumbel_noise

    seeds = torch.tensor([stream_seed("moments", index) for index in range(500)])
    noise = gumbel_noise(seeds, 3, 200)
    assert noise.mean().item() == pytest.approx(0.5772156649, abs=0.02)  # Euler's constant
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)


def test_streams_tokens_and_steps_are_uncorrelated() -> None:
    import torch

    from models.captioners.sampling import gumbel_noise

    seeds = torch.arange(300)  # neighbouring seeds are the hardest case for a hash
    noise = gumbel_noise(seeds, 0, 300)
    others = (noise.roll(1, 0), noise.roll(1, 1), noise.T, gumbel_noise(seeds, 1, 300))
    for other in others:
        pair = torch.stack([noise.flatten(), other.flatten()])
        assert abs(torch.corrcoef(pair)[0, 1].item()) < 0.02


def test_noise_of_a_row_ignores_the_rest_of_the_batch() -> None:
    import torch

    from models.captioners.sampling import gumbel_noise

    seeds = torch.tensor([stream_seed("row", index) for index in range(16)])
    together = gumbel_noise(seeds, 5, 50)
    for index in range(16):
        assert torch.equal(gumbel_noise(seeds[index : index + 1], 5, 50)[0], together[index])
    assert torch.equal(gumbel_noise(seeds, 5, 80)[:, :50], together)


def test_noise_equals_integer_arithmetic_in_python() -> None:
    """The wrapping int64 tensors must compute what unbounded integers modulo 2**64 compute."""
    import torch

    from models.captioners.sampling import gumbel_noise

    mask = (1 << 64) - 1

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    seed, step, token = -(2**63) + 12345, 4, 9
    row = mix((seed + (step + 1) * 0xD1B54A32D192ED03) & mask)
    bits = mix((row + (token + 1) * 0x9E3779B97F4A7C15) & mask) >> 12
    uniform = (bits + 0.5) / 2**52
    expected = -math.log(-math.log(uniform))
    assert gumbel_noise(torch.tensor([seed]), step, 12)[0, token].item() == pytest.approx(expected)


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
def test_nucleus_equals_the_library_filter(top_p: float) -> None:
    import torch
    from transformers import TopPLogitsWarper

    from models.captioners.sampling import keep_nucleus

    torch.manual_seed(0)
    logits = torch.randn(64, 100, dtype=torch.float64) * 3
    assert torch.equal(keep_nucleus(logits, top_p), TopPLogitsWarper(top_p)(None, logits))


def test_stream_seeds_tell_parts_apart() -> None:
    seeds = [
        stream_seed("ab", "c"),
        stream_seed("a", "bc"),
        stream_seed("abc"),
        stream_seed("1", 2),
        stream_seed(1, "2"),
        stream_seed(12),
    ]
    assert len(set(seeds)) == len(seeds)
    # Stored captions depend on this number; it must not move between versions or machines.
    message = b"str:7:captionint:1:0str:3:imgint:1:3"
    digest = hashlib.blake2b(message, digest_size=8).digest()
    assert stream_seed("caption", 0, "img", 3) == struct.unpack("<q", digest)[0]
