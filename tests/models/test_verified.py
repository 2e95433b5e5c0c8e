"""Orders of candidates after a verifier's verdicts, worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

RANKED = ["a", "b", "c", "d"]
SCORES = [0.8, 0.6, 0.5, 0.4]
MARGINS = {"a": -2.0, "b": 0.0, "c": 3.0, "d": 1.0}


def ordered(rule: Any, weight: float = 0.5, **other: Any) -> tuple[list[str], list[float]]:
    from models.retrieval.verified import Fusing, verified

    return verified(RANKED, SCORES, other.pop("margins", MARGINS), Fusing(rule, weight, **other))


def p(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


@pytest.mark.parametrize(
    ("rule", "weight", "numbers"),
    [
        ("replace", 0.5, MARGINS),
        (
            "sum",
            0.1,
            {n: s + 0.1 * p(MARGINS[n]) for n, s in zip(RANKED, SCORES, strict=True)},
        ),
        # (s - 0.4) / 0.4 is 1, 0.5, 0.25, 0.
        (
            "minmax",
            0.25,
            {
                "a": 0.25 * p(-2) + 0.75,
                "b": 0.25 * p(0) + 0.375,
                "c": 0.25 * p(3) + 0.1875,
                "d": 0.25 * p(1),
            },
        ),
        # Ranks by margin: c 1, d 2, b 3, a 4.
        (
            "rrf",
            0.5,
            {
                "a": 0.5 / 64 + 0.5 / 61,
                "b": 0.5 / 63 + 0.5 / 62,
                "c": 0.5 / 61 + 0.5 / 63,
                "d": 0.5 / 62 + 0.5 / 64,
            },
        ),
    ],
)
def test_each_rule(rule: str, weight: float, numbers: dict[str, float]) -> None:
    names, scores = ordered(rule, weight)
    assert names == sorted(RANKED, key=lambda name: -numbers[name])
    np.testing.assert_allclose(scores, sorted(numbers.values(), reverse=True), rtol=1e-12)


def test_z_scores_bring_both_to_one_scale() -> None:
    verdicts = np.array([p(MARGINS[name]) for name in RANKED])
    first = (np.array(SCORES) - np.mean(SCORES)) / np.std(SCORES)
    second = (verdicts - verdicts.mean()) / verdicts.std()
    wanted = 0.3 * second + 0.7 * first
    names, scores = ordered("z", 0.3)
    assert names == [RANKED[i] for i in np.argsort(-wanted)]
    np.testing.assert_allclose(scores, np.sort(wanted)[::-1], rtol=1e-12)


def test_a_veto_moves_refused_candidates_behind_and_keeps_both_orders() -> None:
    assert ordered("veto", threshold=0.4)[0] == ["b", "c", "d", "a"]
    assert ordered("veto", threshold=0.9)[0] == ["c", "a", "b", "d"]
    assert ordered("veto", threshold=0.0)[0] == RANKED


@pytest.mark.parametrize("rule", ["sum", "minmax", "z", "rrf"])
def test_the_weights_at_the_ends_leave_one_order(rule: str) -> None:
    assert ordered(rule, 0.0)[0] == RANKED
    if rule != "sum":
        assert ordered(rule, 1.0)[0] == ["c", "d", "b", "a"]


def test_a_candidate_that_was_not_verified_keeps_its_place() -> None:
    names, scores = ordered("replace", margins={"a": -2.0, "c": 3.0, "d": 1.0})
    assert names == ["c", "b", "d", "a"]
    assert scores == [3.0, 0.6, 1.0, -2.0]


def test_nothing_moves_where_fewer_than_half_were_verified() -> None:
    assert ordered("replace", margins={"d": 9.0}) == (RANKED, SCORES)
    assert ordered("replace", margins={}) == (RANKED, SCORES)
    assert ordered("replace", margins={"c": 1.0, "d": 9.0})[0] == ["a", "b", "d", "c"]


def test_equal_numbers_keep_the_first_stage() -> None:
    from models.retrieval.verified import RULES, Fusing, verified

    for rule in RULES:
        same = verified(RANKED, [0.5] * 4, dict.fromkeys(RANKED, 1.0), Fusing(rule))
        assert same[0] == RANKED, rule
    # P is 1 in float64 for both: the first stage decides, and nothing overflows.
    far = verified(["x", "y"], [2.0, 1.0], {"x": 800.0, "y": 900.0}, Fusing("minmax"))
    assert far[0] == ["x", "y"]
    assert np.isfinite(far[1]).all()


def test_places_stand_for_scores_where_only_the_order_is_known() -> None:
    from models.retrieval.verified import places_as_scores

    assert places_as_scores(5) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert places_as_scores(1) == [1.0]
    assert places_as_scores(0) == []


def test_every_method_that_runs_has_a_row_with_a_verifier() -> None:
    from models.retrieval.methods import METHODS, method, needs, runnable_names

    assert set(runnable_names()) == {
        own for name, row in METHODS.items() if row.runs for own in (name, f"{name}+verify")
    }
    row = method("cvsi+verify")
    assert (row.name, row.verifies) == ("cvsi+verify", "cvsi")
    assert row.recipe("cirr") == method("cvsi").recipe("cirr")
    assert set(needs(row, "cirr")) == {*needs(method("cvsi"), "cirr"), "verifier"}
    assert "composed:candidate-rerank" in needs(method("candidate-rerank+verify"), "cirr")


@pytest.mark.parametrize("name", ["cvis+verify", "cvsi+verify+verify", "+verify", "cvsi +verify"])
def test_an_unknown_method_is_refused_with_the_nearest(name: str) -> None:
    from models.retrieval.methods import method

    with pytest.raises(ValueError, match="unknown method"):
        method(name)
