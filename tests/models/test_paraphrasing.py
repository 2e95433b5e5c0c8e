"""Paraphrases: requests, what of a reply is one, and the spread of scores over wordings."""

from __future__ import annotations

import numpy as np
import pytest

from models.generators.paraphrasing import (
    PLACEHOLDERS,
    ParaphraseInput,
    ParaphraseSettings,
    read_paraphrase,
    to_request,
)
from models.prompts.library import load_prompt
from models.protocols import TextReply
from models.retrieval.spread import spread

PROMPT = load_prompt("paraphrase", PLACEHOLDERS)


def reply(text: str, finish: str = "stop") -> TextReply:
    return TextReply("k", text, "ok", "", finish)


def test_each_wording_has_a_key_a_prompt_and_a_stream_of_its_own() -> None:
    settings = ParaphraseSettings(seed=3)
    asked = [ParaphraseInput(n, "in\nred") for n in (1, 2)]
    first, second = (to_request(each, PROMPT, settings) for each in asked)
    assert first.key != second.key != ParaphraseInput(2, "in red").key
    assert first.seed != second.seed
    assert first.prompt.endswith("Wording 1 of several, each with other words.\n\n"
                                 "Instruction: in red\nOther words:")  # fmt: skip
    assert first.temperature > 0


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("make it crimson", "make it crimson"),
        ("Other words: paint it red\nInstruction: next", "paint it red"),
        ('"colour it red"', "colour it red"),
    ],
)
def test_a_reply_is_read_without_its_packaging(said: str, text: str) -> None:
    answer = read_paraphrase(reply(said), "in red", PROMPT.template)
    assert (answer.text, answer.status) == (text, "ok")


@pytest.mark.parametrize(
    ("said", "finish", "why"),
    [
        ("In red.", "stop", "repeated"),
        ("", "stop", "empty"),
        ("I'm sorry, I can't help with that.", "stop", ""),
        ("paint it in the", "length", "cut off"),
    ],
)
def test_what_is_not_a_paraphrase_is_rejected(said: str, finish: str, why: str) -> None:
    answer = read_paraphrase(reply(said, finish), "in red", PROMPT.template)
    assert (answer.text, answer.status) == ("", "rejected")
    assert answer.reason.startswith(why)
    failed = read_paraphrase(TextReply("k", "", "failed", "gone"), "in red", PROMPT.template)
    assert (failed.status, failed.reason) == ("failed", "gone")


def test_the_spread_by_hand() -> None:
    """Three wordings of four queries, of which the last lacks one: ranges 1, 0 and 1/2."""
    wordings = [np.array(own) for own in ([1, 0.5, 0, 1], [0, 0.5, 0.5, 0], [1, 0.5, 0, 0])]
    found = spread([[own] for own in wordings], [[True, True, True, False]])
    assert found is not None
    assert found.queries == 3
    assert found.wordings == pytest.approx((50.0, 100 / 3, 50.0))
    assert found.range == pytest.approx(50.0)
    assert found.relative == pytest.approx(50.0 / (400 / 9))
    assert found.interval[0] <= 50.0 <= found.interval[1]
    assert spread([[own] for own in wordings], [[False] * 4]) is None
    zero = spread([[np.zeros(2)], [np.zeros(2)]], [[True, True]])
    assert zero is not None
    assert (zero.range, zero.relative) == (0.0, None)


def test_categories_weigh_the_same() -> None:
    one = [np.array([1.0, 1.0, 1.0]), np.array([1.0])]
    other = [np.array([0.0, 1.0, 1.0]), np.array([0.0])]
    found = spread([one, other], [[True] * 3, [True]])
    assert found is not None
    assert found.range == pytest.approx((100 / 3 + 100) / 2)
    assert found.wordings == pytest.approx((100.0, (200 / 3 + 0) / 2))
