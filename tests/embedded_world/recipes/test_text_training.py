"""The text generator's training: resuming, the optimiser, the loss weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from embedded_world.recipes.text_differences import DIFFERENCE
from embedded_world.recipes.text_samples import ADDED, COPY, EDIT
from embedded_world.recipes.text_settings import Settings

if TYPE_CHECKING:
    from embedded_world.recipes.text_training import TextLearner

pytestmark = pytest.mark.slow

SMALL = Settings(steps=8, batch=4, pool=2, warm_up=2, seed=3)


def run(learner: TextLearner, steps: int) -> list[float]:
    return [learner.advance()["answer"] for _ in range(steps)]


def new_learner(settings: Settings = SMALL) -> TextLearner:
    from embedded_world.recipes.text_measures import quick_look
    from embedded_world.recipes.text_model import build_model
    from embedded_world.recipes.text_tokenizer import build_text_tokenizer
    from embedded_world.recipes.text_training import TextLearner

    tokenizer = build_text_tokenizer()
    model = build_model(tokenizer, settings.seed)
    return TextLearner(settings, model, tokenizer, quick_look)


def test_a_resumed_run_equals_an_undisturbed_one() -> None:
    import torch

    whole = new_learner()
    losses = run(whole, 8)

    first = new_learner()
    early = run(first, 3)  # in the middle of a pool
    second = new_learner()
    second.load(first.save())
    assert second.step == 3
    assert early + run(second, 5) == losses
    for (name, ours), theirs in zip(
        second.model.state_dict().items(), whole.model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_the_third_cycle_keeps_every_task() -> None:
    from embedded_world.recipes.text_batches import BatchMaker
    from embedded_world.recipes.text_tokenizer import build_text_tokenizer

    settings = replace(SMALL, third=2, settled=4, steps=10)
    maker = BatchMaker(settings, build_text_tokenizer())
    assert not any((batch.contrast >= 0).any() for batch in maker.pool(0))
    rng = Random(0)
    tasks: Counter[str] = Counter(settings.draw(rng, step=4).task for _ in range(400))
    assert set(tasks) == {EDIT, ADDED, COPY, DIFFERENCE}
    assert abs(tasks[DIFFERENCE] / 400 - settings.difference_share) < 0.1
    # The new probes train from `third` on, and not before.
    learner = new_learner(settings)
    batches = maker.from_step(0)
    for _ in range(2):
        assert "difference" not in learner.learn(next(batches))
    assert learner.probes["contrast"].weight.abs().sum() == 0
    for _ in range(2):
        assert "difference" in learner.learn(next(batches))
    assert learner.probes["contrast"].weight.abs().sum() > 0


def test_muon_moves_along_the_nearest_orthogonal_matrix() -> None:
    import torch
    from torch import nn

    from embedded_world.recipes.muon import Muon

    torch.manual_seed(0)
    wide, tall = nn.Parameter(torch.zeros(8, 24)), nn.Parameter(torch.zeros(24, 8))
    wide.grad, tall.grad = torch.randn(8, 24), torch.randn(24, 8)
    Muon([wide, tall], momentum=0.0).step(lr=1.0, weight_decay=0.0)
    for p in (wide, tall):
        u, _, v = torch.linalg.svd(p.grad, full_matrices=False)
        step = -p.detach() / (0.2 * 24**0.5)
        cosine = torch.sum(step * (u @ v)) / step.norm() / (u @ v).norm()
        assert cosine > 0.97
        # The iteration's limit: singular values between about 0.7 and 1.2, all near one.
        assert torch.linalg.svdvals(step).sub(1).abs().max() < 0.4


def test_rate_and_curriculum_by_hand() -> None:
    settings = Settings(
        steps=5000,
        lr=1.0,
        warm_up=10,
        flat=500,
        restart=1000,
        restart_lr=0.5,
        third=2000,
        third_lr=0.1,
        settled=2500,
        fourth=3000,
        fourth_lr=0.2,
        fifth=4000,
        fifth_lr=0.4,
    )
    assert [settings.rate(s) for s in (0, 9, 500, 750)] == pytest.approx([0.1, 1.0, 1.0, 0.5])
    assert [settings.rate(s) for s in (999, 1000, 1500)] == pytest.approx([0.01, 0.05, 0.25])
    assert settings.rate(1999) == pytest.approx(0.005)
    assert [settings.rate(s) for s in (2000, 2500)] == pytest.approx([0.01, 0.05])
    assert [settings.rate(s) for s in (2999, 3000, 3500)] == pytest.approx([0.001, 0.02, 0.1])
    assert [settings.rate(s) for s in (4500, 4999)] == pytest.approx([0.2, 0.004])
    assert settings.mix(0).most == 2
    assert settings.mix(0).two == settings.mix(0).varied == 0.0
    assert settings.mix(1200).most == 3
    assert settings.mix(1200).mismatched > 0
    assert settings.difference_mix(2499).apart == (1,)
    assert {0, 1, 2, 3, 4} == set(settings.difference_mix(2500).apart)


def test_only_real_tokens_weigh_and_answers_weigh_most() -> None:
    import torch

    from embedded_world.recipes.text_batches import BatchMaker
    from embedded_world.recipes.text_tokenizer import build_text_tokenizer

    tokenizer = build_text_tokenizer()
    maker = BatchMaker(SMALL, tokenizer)
    for batch in maker.pool(0):
        padding = batch.ids == tokenizer.pad_token_id
        assert torch.all(batch.weights[padding] == 0)
        assert torch.all(batch.weights[~padding] > 0)
        for ids, weights in zip(batch.ids, batch.weights, strict=True):
            tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
            answer = [t for t, w in zip(tokens, weights, strict=True) if w == 1.0]
            asked = tokens.index(answer[0]) if tokens.count(answer[0]) == 1 else None
            assert answer[-1] == "</s>"
            assert answer.count("</s>") == 1
            assert not any(t.endswith(":") for t in answer)
            assert asked is None or tokens[asked - 1].endswith(":")
