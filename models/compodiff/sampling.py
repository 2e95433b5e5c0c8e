"""Sampling an image feature with guidance on text and reference (CompoDiff, section 3.3).

    x0 = f(0, neg) + w_I [f(Ir, neg) - f(0, neg)] + w_T [f(Ir, T) - f(Ir, neg)]

where f(reference, text) predicts x0, 0 is no reference and neg a text for "no text". DDIM walks
from noise to the feature. All noise follows from the seed and is the same for each query, so that
a query's feature does not depend on the batch it is sampled in.

Shape legend: B batch, d width of image features, L text tokens, W their width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from models.compodiff.network import Denoiser
from models.compodiff.schedule import NoiseSchedule, sampler_times
from models.compodiff.settings import SamplingSettings

Predict = Callable[[torch.Tensor, int], torch.Tensor]
"""(noisy features (B, d), time) -> predicted x0 (B, d)."""


@dataclass(frozen=True)
class TextStates:
    """Token states of B texts.

    Attributes:
        states: (B, L, W).
        mask: (B, L) true where a text has a token; None: the network sees all L.
    """

    states: torch.Tensor
    mask: torch.Tensor | None = None

    def part(self, rows: slice) -> TextStates:
        """Some of the texts."""
        return TextStates(self.states[rows], None if self.mask is None else self.mask[rows])

    def repeated(self, count: int) -> TextStates:
        """One text for so many rows."""
        mask = None if self.mask is None else self.mask.expand(count, -1)
        return TextStates(self.states.expand(count, -1, -1), mask)


def guided(
    denoiser: Denoiser,
    reference: torch.Tensor,
    text: TextStates,
    negative: TextStates,
    image_guidance: float,
    text_guidance: float,
) -> Predict:
    """The denoiser under guidance; three forward passes in one batch.

    Args:
        denoiser: The network.
        reference: (B, d) features of the references, as the network reads them.
        text: Of the B queries.
        negative: Of the text that stands for none, one row for each query.
        image_guidance: w_I.
        text_guidance: w_T.
    """
    states = torch.cat((negative.states, negative.states, text.states))
    mask = None
    if text.mask is not None and negative.mask is not None:
        mask = torch.cat((negative.mask, negative.mask, text.mask))
    references = torch.cat((torch.zeros_like(reference), reference, reference))

    def predict(noisy: torch.Tensor, time: int) -> torch.Tensor:
        times = torch.full((3 * len(noisy),), time, device=noisy.device)
        found = denoiser(noisy.repeat(3, 1), times, states, references, mask)
        nothing, image, both = found.chunk(3)
        return nothing + image_guidance * (image - nothing) + text_guidance * (both - image)

    return predict


def ddim(
    predict: Predict,
    schedule: NoiseSchedule,
    start: torch.Tensor,
    *,
    calls: int,
    eta: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Walk from noise to a feature in `calls` evaluations of the network.

    As released, a step's share of signal is read one step earlier (abar_{t-1}), and the noise in
    x_t is found with abar_t itself.

    Args:
        predict: x0 from a noisy feature and a time.
        schedule: Of the noise.
        start: (B, d) pure noise.
        calls: Evaluations of the network.
        eta: 1: fresh noise in each step; 0: none, the walk follows from its start.
        generator: Of the fresh noise, on the CPU; all rows get the same.

    Returns:
        (B, d) x0.
    """
    noisy = start
    for time, following in pairwise(sampler_times(schedule.steps, calls)):
        x0 = predict(noisy, time)
        if following < 0:
            return x0
        now, then = schedule.kept_before[time], schedule.kept_before[following]
        fresh = eta * ((1 - now / then) * (1 - then) / (1 - now)).sqrt()
        rest = ((1 - then) - fresh**2).clamp(min=0).sqrt()
        drawn = torch.randn(start.shape[1], generator=generator).to(start.device)
        noisy = then.sqrt() * x0 + fresh * drawn + rest * schedule.noise_in(noisy, time, x0)
    raise AssertionError("sampler_times ends with -1")


def sampled(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    reference: torch.Tensor,
    text: TextStates,
    negative: TextStates,
    settings: SamplingSettings,
) -> torch.Tensor:
    """Mean of the draws of B queries.

    Args:
        denoiser: The network, in evaluation mode.
        schedule: Of the noise.
        reference: (B, d), as the network reads image features.
        text: Of the B queries.
        negative: Of the text that stands for none, one row for each query.
        settings: Calls, draws, guidance, noise, seed.

    Returns:
        (B, d) in the units of `reference`.
    """
    weights = (settings.image_guidance, settings.text_guidance)
    predict = guided(denoiser, reference, text, negative, *weights)
    draws = []
    for draw in range(settings.draws):
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + draw)
        start = torch.randn(reference.shape[1], generator=generator).to(reference)
        draws.append(
            ddim(
                predict,
                schedule,
                start.expand_as(reference),
                calls=settings.calls,
                eta=settings.eta,
                generator=generator,
            )
        )
    return torch.stack(draws).mean(dim=0)
