"""Pic2Word's and SEARLE's losses against naive formulas, and what training does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.textual_inversion.learner_settings import (
    INVERSIONS,
    Pic2WordSettings,
    SearleSettings,
)

if TYPE_CHECKING:
    import torch

    from models.encoders.open_clip import OpenClipEncoder
    from models.textual_inversion.learners import Pic2WordLearner, SearleLearner

PHRASES = {"cat": ("a photo of cat that sees a cat",), "hat": ("a photo of hat that is old",)}


def features(encoder: OpenClipEncoder, count: int = 4) -> torch.Tensor:
    import torch

    torch.manual_seed(2)
    return torch.randn(count, encoder.dim) * 5


def pic2word(encoder: OpenClipEncoder) -> Pic2WordLearner:
    from models.textual_inversion.learners import Pic2WordLearner

    settings = Pic2WordSettings(hidden=16, dropout=0.0)
    return Pic2WordLearner(encoder.tower, encoder.dim, 14.0, settings, seed=3)


def searle(encoder: OpenClipEncoder, **settings) -> SearleLearner:
    from models.textual_inversion.learners import SearleLearner

    chosen = SearleSettings(**{"dropout": 0.0, **settings})
    return SearleLearner(encoder.tower, encoder.dim, list(PHRASES), PHRASES, chosen, seed=3)


def test_pic2words_loss_is_the_naive_formula(encoder: OpenClipEncoder) -> None:
    from models.protocols import SplicedText

    learner, images = pic2word(encoder), features(encoder)
    w = learner.module.state_dict()

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    hidden = linear(images, "layers.0.0").clamp(min=0)
    hidden = linear(hidden, "layers.1.0").clamp(min=0)
    tokens = linear(hidden, "fc_out").numpy()
    texts = encoder.encode_spliced([SplicedText("a photo of", "")] * 4, tokens)
    t = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    v = images.numpy() / np.linalg.norm(images.numpy(), axis=1, keepdims=True)
    scores, total = 14.0 * t @ v.T, 0.0
    for i in range(4):
        total -= math.log(math.exp(scores[i, i]) / np.exp(scores[i]).sum()) / 8
        total -= math.log(math.exp(scores[i, i]) / np.exp(scores[:, i]).sum()) / 8
    assert learner.loss({"features": images}).item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("replace", ["first", "all_as_code"])
def test_searles_loss_is_the_naive_formula(encoder: OpenClipEncoder, replace: str) -> None:
    import torch

    from models.protocols import SplicedText
    from tests.models.textual_inversion.test_losses import naive_simclr

    learner, images = searle(encoder, replace=replace), features(encoder, 3)
    oti = torch.randn(3, encoder.token_width)
    # One concept an image, so that draws leave nothing open.
    batch = {"features": images, "tokens": oti, "concepts": torch.tensor([[0], [1], [0]])}
    with torch.no_grad():
        tokens = learner.module(images)
    rest = {"first": "that sees a cat", "all_as_code": "that sees a $"}[replace]
    cat, hat = SplicedText("a photo of", rest), SplicedText("a photo of", "that is old")
    spliced = encoder.encode_spliced([cat, hat, cat], tokens.numpy())
    whole = encoder.encode_texts([PHRASES[name][0] for name in ("cat", "hat", "cat")])
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(spliced, whole, strict=True)
    ]
    expected = naive_simclr(oti, tokens, 0.25) + 0.75 * (1 - sum(cosines) / 3)
    assert learner.loss(batch).item() == pytest.approx(float(expected), rel=1e-4)
    alone = searle(encoder, phrase_weight=0.0)
    assert alone.loss(batch).item() == pytest.approx(naive_simclr(oti, tokens, 0.25), rel=1e-4)


def test_every_concept_and_phrase_is_drawn(encoder: OpenClipEncoder) -> None:
    import torch

    learner = searle(encoder)
    torch.manual_seed(0)
    concepts = torch.tensor([[0, 1]]).repeat(200, 1)
    whole, spliced = learner.drawn(concepts, encoder.tower)
    share = sum(row == encoder.tower.tokens.row(PHRASES["cat"][0]) for row in whole) / 200
    assert 0.35 < share < 0.65
    assert all(len(row.positions) == 1 for row in spliced)


def test_only_the_mapping_network_is_trained_and_kept(encoder: OpenClipEncoder) -> None:
    before = encoder.encode_texts(["a cat"])
    for learner in (pic2word(encoder), searle(encoder)):
        assert all(name.startswith("module.") for name in learner.state_dict())
        (*_, group) = learner.parameter_groups()
        assert sum(len(g.parameters) for g in learner.parameter_groups()) == 6
    decayed = {g.decay: len(g.parameters) for g in pic2word(encoder).parameter_groups()}
    assert decayed == {True: 3, False: 3}  # Pic2Word's biases do not decay
    assert group.decay  # SEARLE's do
    np.testing.assert_array_equal(encoder.encode_texts(["a cat"]), before)


def test_held_out_measures_of_known_answers(encoder: OpenClipEncoder) -> None:
    import torch

    learner, images = searle(encoder), features(encoder, 6)
    with torch.no_grad():
        own = learner.module(images)
    batches = [
        {"features": images[:4], "tokens": own[:4]},
        {"features": images[4:], "tokens": own[4:]},
    ]
    found = learner.held_out(batches)
    assert found["recall_1"] == 1.0
    assert found["cosine"] == pytest.approx(1.0)
    assert found["score"] == 1.0


def test_published_schedules() -> None:
    pic2word, searle = INVERSIONS["pic2word"].training, INVERSIONS["searle"].training
    assert (pic2word.betas, pic2word.eps, pic2word.weight_decay) == ((0.9, 0.98), 1e-6, 0.1)
    assert (searle.batch_size, searle.epochs, searle.schedule) == (256, 100, "constant")
