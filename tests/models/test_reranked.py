"""The order of a second stage, worked out by hand."""

from __future__ import annotations

import pytest


def test_the_first_images_are_ordered_by_score_and_the_others_stay() -> None:
    from models.retrieval.reranked import reranked

    scores = {"a": 0.1, "b": 0.7, "c": 0.1, "d": 0.9, "e": 5.0}
    assert reranked("abcde", scores, 4) == ["d", "b", "a", "c", "e"]
    assert reranked("abcde", scores, 9) == ["e", "d", "b", "a", "c"]
    assert reranked("abcde", {}, 0) == list("abcde")


def test_a_candidate_without_a_score_is_an_error() -> None:
    from models.retrieval.reranked import reranked

    with pytest.raises(KeyError, match="b"):
        reranked("ab", {"a": 1.0}, 2)
