"""Rates by hand, recall against a naive count, and the second stage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from models.instructcir.settings import CombinerSettings, LossSettings
from models.instructcir.training_settings import ReformulationTraining
from models.training.schedules import rate_factor

if TYPE_CHECKING:
    import torch

    from models.instructcir.combiner import Combiner


def test_rates_by_hand() -> None:
    """20 steps, 10 % warm-up: 1/2, 1, then half a cosine over 18 steps."""
    factors = [rate_factor(step, 20, 0.1) for step in range(21)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[11] == pytest.approx(0.5)
    assert factors[5] == pytest.approx((1 + math.cos(math.pi / 6)) / 2)
    assert factors[20] == pytest.approx(0.0)
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert rate_factor(0, 1, 0.0) == 1.0
    assert rate_factor(0, 3, 0.05) == 1.0


def test_steps_by_hand() -> None:
    settings = ReformulationTraining(batch_size=8, epochs=3, accumulate=2)
    assert settings.steps_of(50) == (6, 9)
    assert ReformulationTraining(batch_size=8, max_steps=5).steps_of(50) == (6, 5)
    with pytest.raises(ValueError, match="7 training examples do not fill a batch of 8"):
        settings.steps_of(7)


def test_a_batch_is_shared_equally_or_refused() -> None:
    assert ReformulationTraining(batch_size=12).share(4) == 3
    with pytest.raises(ValueError, match=r"batch_size is 250, which 4 devices .* is 248 or 252$"):
        ReformulationTraining(batch_size=250).share(4)
    with pytest.raises(ValueError, match=r"which 16 devices .* is 16$"):
        ReformulationTraining(batch_size=8).share(16)


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 1), ("warmup", 1.0), ("learning_rate", 0.0), ("keep", "first"), ("clip", -1)],
)
def test_values_without_a_meaning(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        ReformulationTraining(**{name: value})  # type: ignore[arg-type]


def test_recall_against_a_naive_count() -> None:
    import torch
    from torch.nn import functional

    from models.training.recall import recall

    random = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 20, (40,), generator=random)
    images = torch.randn(20, 6, generator=random)
    targets = images[ids] * 3.0
    queries = images[ids] + 0.9 * torch.randn(40, 6, generator=random)
    ranks = []
    for query, own in zip(queries, ids.tolist(), strict=True):
        scores = {
            i: float(functional.cosine_similarity(query, images[i], 0)) for i in set(ids.tolist())
        }
        ranks.append(sorted(scores, key=lambda i: -scores[i]).index(own))
    found = recall(queries, targets, ids)
    assert found.recall_1 == pytest.approx(sum(rank < 1 for rank in ranks) / 40)
    assert found.recall_5 == pytest.approx(sum(rank < 5 for rank in ranks) / 40)
    assert 0 < found.recall_1 < found.recall_5 < 1
    assert found.score == pytest.approx((found.recall_1 + found.recall_5) / 2)
    # Where everything is equally similar nothing is found.
    assert recall(torch.ones(4, 2), torch.ones(4, 2), torch.arange(4)).recall_1 == 0.0


@pytest.mark.parametrize("kind", ["scalar", "clip4cir_scalar", "clip4cir_mlp"])
def test_the_second_stage_lowers_its_loss_and_touches_nothing_else(kind: str) -> None:
    import torch

    from models.instructcir.combiner import new_combiner
    from models.instructcir.combiner_training import FrozenFeatures, train_combiner
    from models.instructcir.loss import contrastive_loss

    random = torch.Generator().manual_seed(1)
    targets = torch.randn(64, 12, generator=random)
    noise = [torch.randn(64, 12, generator=random) for _ in range(3)]
    # The text says more than z does, so that the best weight lies far from the start.
    features = FrozenFeatures(
        z=targets + 2.5 * noise[0],
        text=targets + 0.8 * noise[1],
        image_null=noise[2],
        targets=targets,
        target_ids=torch.arange(64),
    )
    before = [t.clone() for t in (features.z, features.text, features.targets)]
    settings = CombinerSettings(kind=kind, projection=16, hidden=32)  # type: ignore[arg-type]
    loss = LossSettings(temperature=0.1)

    rows = torch.arange(64)

    def whole(combiner: Combiner) -> float:
        with torch.no_grad():
            queries = features.combined(combiner.eval(), rows)
            return float(contrastive_loss(queries, targets, rows, loss))

    def train() -> tuple[list[float], list[torch.Tensor]]:
        combiner = new_combiner(12, settings)
        untrained = whole(combiner)
        losses = train_combiner(
            combiner, features, loss, learning_rate=2e-2, epochs=40, batch_size=32, seed=0
        )
        assert whole(combiner) < 0.97 * untrained
        return losses, [p.detach().clone() for p in combiner.parameters()]

    losses, weights = train()
    assert len(losses) == 80
    for mine, theirs in zip(before, (features.z, features.text, features.targets), strict=True):
        assert torch.equal(mine, theirs)
    torch.manual_seed(99)  # whatever else happens in the process must not matter
    again, same = train()
    assert again == losses
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))


def test_a_combiner_that_diverges_says_so() -> None:
    import torch

    from models.instructcir.combiner import new_combiner
    from models.instructcir.combiner_training import FrozenFeatures, train_combiner

    features = FrozenFeatures(
        *(torch.full((4, 2), float("nan")) for _ in range(2)),
        None,
        torch.ones(4, 2),
        torch.arange(4),
    )
    with pytest.raises(FloatingPointError, match="combiner_learning_rate"):
        train_combiner(
            new_combiner(2, CombinerSettings()),
            features,
            LossSettings(),
            learning_rate=0.1,
            epochs=1,
            batch_size=4,
            seed=0,
        )
