"""Scores and loss of the re-ranker against computations written out."""

from __future__ import annotations

import math

import pytest


def test_a_score_is_the_first_output_on_both_first_states() -> None:
    import torch
    from transformers import BlipTextConfig

    from models.reranking.cross_encoder import CrossEncoder

    torch.manual_seed(0)
    config = BlipTextConfig(
        vocab_size=20,
        hidden_size=8,
        encoder_hidden_size=6,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=9,
        is_decoder=True,
    )
    network = CrossEncoder(config).eval()
    fused, ids = torch.randn(2, 5, 8), torch.randint(1, 20, (2, 5))
    mask, images = torch.ones(2, 5, dtype=torch.bool), torch.randn(3, 4, 6)
    with torch.no_grad():
        scores = network(fused, ids, mask, images)
        first, second = network.text_encoder(fused, ids, mask, images)
    state = network.state_dict()
    assert {n: tuple(state[n].shape) for n in state if n.startswith("cls_head")} == {
        "cls_head.0.weight": (8, 16),
        "cls_head.0.bias": (8,),
        "cls_head.2.weight": (2, 8),
        "cls_head.2.bias": (2,),
    }
    assert scores.shape == (2, 3)
    read = torch.cat([first[1, 2, 0], second[1, 2, 0]])
    hidden = (state["cls_head.0.weight"] @ read + state["cls_head.0.bias"]).clamp(min=0)
    expected = state["cls_head.2.weight"][0] @ hidden + state["cls_head.2.bias"][0]
    assert float(scores[1, 2]) == pytest.approx(float(expected), abs=1e-5)


def test_the_loss_is_a_choice_among_the_candidates_of_the_batch() -> None:
    import torch

    from models.reranking.cross_encoder import matching_loss

    torch.manual_seed(1)
    scores = torch.randn(4, 4) * 3
    rows = scores.tolist()

    def expected(left_out: set[tuple[int, int]]) -> float:
        terms = [
            math.log(sum(math.exp(s) for j, s in enumerate(row) if (i, j) not in left_out)) - row[i]
            for i, row in enumerate(rows)
        ]
        return sum(terms) / 4

    assert float(matching_loss(scores)) == pytest.approx(expected(set()), rel=1e-5)
    repeated = matching_loss(scores, torch.tensor([5, 6, 5, 7]))
    assert float(repeated) == pytest.approx(expected({(0, 2), (2, 0)}), rel=1e-5)
