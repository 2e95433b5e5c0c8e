"""The reversed loss against the formula, one number at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch


def _vectors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    import torch

    torch.manual_seed(0)
    targets, texts, references = torch.randn(3, 5, 8)
    return targets, texts, references


@pytest.mark.parametrize("repeated", [False, True])
def test_it_equals_the_formula(repeated: bool) -> None:
    """Query j of row i is n(target j + text i); a repeat of the own target is left out."""
    import torch

    from models.composed.reversed_queries import reversed_nce

    targets, texts, references = _vectors()
    ids = [0, 1, 2, 0, 3]
    if repeated:
        targets[3] = targets[0]
    total = 0.0
    for i in range(5):
        scores = []
        for j in range(5):
            query = [a + b for a, b in zip(targets[j].tolist(), texts[i].tolist(), strict=True)]
            answer = references[i].tolist()
            cosine = sum(a * b for a, b in zip(query, answer, strict=True))
            cosine /= math.hypot(*query) * math.hypot(*answer)
            scores.append(20.0 * cosine)
        kept = [s for j, s in enumerate(scores) if not repeated or j == i or ids[j] != ids[i]]
        total += math.log(sum(math.exp(s) for s in kept)) - scores[i]
    found = reversed_nce(
        torch.add, targets, texts, references, 20.0, torch.tensor(ids) if repeated else None
    )
    assert float(found) == pytest.approx(total / 5, rel=1e-5)


def test_negatives_stand_in_the_query_and_not_in_the_answer() -> None:
    """Another row's reference changes that row's term alone."""
    import torch

    from models.composed.reversed_queries import reversed_nce

    targets, texts, references = _vectors()
    changed = references.clone()
    changed[4] = -changed[4]
    terms = [
        5 * float(reversed_nce(torch.add, targets, texts, each, 20.0))
        for each in (references, changed)
    ]
    one = [
        float(
            torch.nn.functional.cross_entropy(
                20 * torch.nn.functional.cosine_similarity(targets + texts[4], each[4][None])[None],
                torch.tensor([4]),
            )
        )
        for each in (references, changed)
    ]
    assert terms[1] - terms[0] == pytest.approx(one[1] - one[0], abs=1e-4)
