"""CompoDiff's denoiser, noise schedule, guidance and sampler against independent answers."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    import torch

    from models.compodiff.network import Denoiser
    from models.compodiff.sampling import TextStates

D, W, LENGTH = 24, 20, 5


def small(region_side: int = 4, heads: int = 3, head_width: int = 6) -> Denoiser:
    """A random denoiser whose every parameter is away from its start value."""
    import torch

    from models.compodiff.network import Denoiser, DenoiserShape

    torch.manual_seed(0)
    denoiser = Denoiser(DenoiserShape(D, W, 2, heads, head_width, region_side)).eval()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return denoiser.requires_grad_(False)


def inputs(rows: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy features (B, d), texts (B, L, W), references (B, d)."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, D), (rows, LENGTH, W), (rows, D))
    noisy, text, reference = (torch.randn(*shape, generator=generator) for shape in shapes)
    return noisy, text, reference


@pytest.mark.parametrize(("heads", "head_width"), [(3, 6), (2, 40)])
def test_the_network_is_the_released_one(heads: int, head_width: int) -> None:
    """Width 40 turns only its first 32 numbers; 6 turns all."""
    import torch

    from models.compodiff.network import DenoiserShape
    from tests.models.compodiff.naive import denoised

    denoiser = small(4, heads, head_width)
    noisy, text, reference = inputs(3)
    steps = torch.tensor([0, 417, 999])
    region = (torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    with torch.no_grad():
        found = denoiser(noisy, steps, text, reference, region=region)
    weights = {k: v.double().numpy() for k, v in denoiser.state_dict().items()}
    assert denoiser.shape == DenoiserShape(D, W, 2, heads, head_width, 4)
    for row in range(3):
        wanted = denoised(
            weights,
            noisy[row].double().numpy(),
            int(steps[row]),
            text[row].double().numpy(),
            reference[row].double().numpy(),
            region[row].double().numpy(),
            depth=2,
            heads=heads,
        )
        np.testing.assert_allclose(found[row].numpy(), wanted, atol=2e-5 * abs(wanted).max())


def test_padding_is_not_seen_and_no_region_is_an_empty_one() -> None:
    import torch

    denoiser = small()
    noisy, text, reference = inputs(2)
    steps = torch.tensor([10, 20])
    mask = torch.tensor([[True] * LENGTH, [True] * 3 + [False] * 2])
    with torch.no_grad():
        found = denoiser(noisy, steps, text, reference, mask)
        for row, length in enumerate((LENGTH, 3)):
            one = slice(row, row + 1)
            alone = denoiser(noisy[one], steps[one], text[one, :length], reference[one])
            torch.testing.assert_close(found[one], alone)
        empty = denoiser(noisy, steps, text, reference, mask, torch.zeros(2, 4, 4))
    torch.testing.assert_close(found, empty)
    assert "to_mask_embeds.1.net.2.weight" not in small(region_side=0).state_dict()


def test_the_schedule_is_the_cosine_and_time_0_keeps_the_feature() -> None:
    import torch

    from models.compodiff.schedule import NoiseSchedule

    schedule = NoiseSchedule(1000)

    def share(step: int) -> float:  # of equation 17 in Nichol and Dhariwal, before the bound
        return math.cos((step / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    for step in (0, 1, 500, 990):
        assert float(schedule.kept[step]) == pytest.approx(share(step + 1) / share(0), rel=1e-5)
    assert float(schedule.kept[999] / schedule.kept[998]) == pytest.approx(0.001, rel=1e-3)
    assert float(schedule.kept_before[0]) == 1
    torch.testing.assert_close(schedule.kept_before[1:], schedule.kept[:-1])

    x0, _, noise = inputs(4)
    noised = schedule.noised(x0, torch.zeros(4, dtype=torch.int64), noise)
    bound = math.sqrt(1 - float(schedule.kept[0]))
    assert float((noised - x0).norm()) <= 1.01 * bound * float(noise.norm())
    at = torch.tensor([0, 250, 600, 999])
    noised = schedule.noised(x0, at, noise)
    for row, step in enumerate(at.tolist()):
        found = schedule.noise_in(noised[row : row + 1], step, x0[row : row + 1])
        torch.testing.assert_close(found, noise[row : row + 1], atol=2e-4, rtol=1e-3)


def test_the_sampler_visits_the_released_times() -> None:
    from models.compodiff.schedule import sampler_times

    # reversed(linspace(-1, 1000, 11 + 1)[:-1]) as whole numbers, by hand for the demo's 10 calls.
    assert sampler_times(1000, 10) == [909, 818, 727, 636, 545, 454, 363, 272, 181, 90, -1]
    assert sampler_times(1000, 1) == [499, -1]
    assert len(sampler_times(1000, 25)) == 26
    for calls in (0, 1000):
        with pytest.raises(ValueError, match="1 to 999 calls"):
            sampler_times(1000, calls)


def states(text: torch.Tensor) -> TextStates:
    from models.compodiff.sampling import TextStates

    return TextStates(text)


def test_guidance_is_a_sum_of_three_predictions() -> None:
    import torch

    from models.compodiff.sampling import guided

    denoiser = small()
    noisy, text, reference = inputs(4)
    _, negative, _ = inputs(4, seed=9)

    def one(reference: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return denoiser(noisy, torch.full((4,), 300), text, reference)

    def many(w_image: float, w_text: float, text: torch.Tensor = text) -> torch.Tensor:
        with torch.no_grad():
            of = (denoiser, reference, states(text), states(negative), w_image, w_text)
            return guided(*of)(noisy, 300)

    nothing, image, both = one(0 * reference, negative), one(reference, negative), one(
        reference, text
    )  # fmt: skip
    torch.testing.assert_close(many(1, 1), both, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(many(0, 0), nothing, atol=1e-5, rtol=1e-4)
    wanted = nothing + 1.5 * (image - nothing) + 7.5 * (both - image)
    torch.testing.assert_close(many(1.5, 7.5), wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(many(1.5, 0), many(1.5, 0, text.flip(0)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(many(1.5, 7.5), many(1.5, 7.5, text.flip(0)), atol=1e-2)


def test_the_walk_without_fresh_noise_is_ddim() -> None:
    """With x0 known exactly, each point of a walk with eta 0 lies on the line of its noise."""
    import torch

    from models.compodiff.sampling import ddim
    from models.compodiff.schedule import NoiseSchedule, sampler_times

    schedule = NoiseSchedule(1000)
    wanted, _, start = inputs(3)
    seen: list[tuple[int, torch.Tensor]] = []

    def predict(noisy: torch.Tensor, time: int) -> torch.Tensor:
        seen.append((time, noisy))
        return wanted

    generator = torch.Generator().manual_seed(0)
    found = ddim(predict, schedule, start, calls=6, eta=0.0, generator=generator)
    assert torch.equal(found, wanted)
    assert [time for time, _ in seen] == sampler_times(1000, 6)[:-1]
    noise = start
    for (time, noisy), (following, then) in itertools.pairwise(seen):
        kept = float(schedule.kept[time])
        noise = (noisy - math.sqrt(kept) * wanted) / math.sqrt(1 - kept)
        before = float(schedule.kept[following - 1])
        moved = math.sqrt(before) * wanted + math.sqrt(1 - before) * noise
        torch.testing.assert_close(then, moved, atol=1e-4, rtol=1e-3)


def test_fresh_noise_has_the_variance_of_ddpm() -> None:
    """eta 1: the variance of one step, over many draws, is DDPM's posterior variance."""
    import torch

    from models.compodiff.sampling import ddim
    from models.compodiff.schedule import NoiseSchedule, sampler_times

    schedule = NoiseSchedule(1000)
    first, second = sampler_times(1000, 2)[:2]
    points: list[torch.Tensor] = []

    def predict(noisy: torch.Tensor, time: int) -> torch.Tensor:
        if time == second:
            points.append(noisy)
        return torch.zeros_like(noisy)

    width = 200_000
    ddim(
        predict,
        schedule,
        torch.zeros(1, width),
        calls=2,
        eta=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    now, then = float(schedule.kept[first - 1]), float(schedule.kept[second - 1])
    beta = 1 - now / then
    assert float(points[0].var()) == pytest.approx(beta * (1 - then) / (1 - now), rel=0.02)


def test_a_query_is_sampled_alike_alone_and_in_a_batch() -> None:
    import torch

    from models.compodiff.sampling import sampled
    from models.compodiff.schedule import NoiseSchedule
    from models.compodiff.settings import SamplingSettings

    denoiser, schedule = small(), NoiseSchedule(1000)
    _, text, reference = inputs(4)
    _, negative, _ = inputs(4, seed=9)

    def of(rows: slice, **changes: float) -> torch.Tensor:
        chosen = SamplingSettings(calls=4).changed(**changes)
        with torch.no_grad():
            found = (reference[rows], states(text[rows]), states(negative[rows]))
            return sampled(denoiser, schedule, *found, chosen)

    together = of(slice(0, 4))
    for row in range(4):
        one = slice(row, row + 1)
        torch.testing.assert_close(of(one), together[one], atol=1e-4, rtol=1e-3)
    assert torch.equal(of(slice(0, 4)), together)
    assert not torch.allclose(of(slice(0, 4), seed=1), together, atol=1e-2)
    # Without guidance neither reference nor text is heard: each query gets the same feature.
    nothing = of(slice(0, 1), image_guidance=0.0, text_guidance=0.0)
    swapped = sampled_with(denoiser, schedule, reference[1:2], text[1:2], negative[:1])
    torch.testing.assert_close(nothing, swapped, atol=1e-5, rtol=1e-4)


def sampled_with(
    denoiser: Denoiser, schedule: object, reference: torch.Tensor, *texts: torch.Tensor
) -> torch.Tensor:
    import torch

    from models.compodiff.sampling import sampled
    from models.compodiff.schedule import NoiseSchedule
    from models.compodiff.settings import SamplingSettings

    assert isinstance(schedule, NoiseSchedule)
    unguided = SamplingSettings(calls=4, image_guidance=0, text_guidance=0)
    with torch.no_grad():
        text, negative = map(states, texts)
        return sampled(denoiser, schedule, reference, text, negative, unguided)
