"""Questions drawn from texts, and candidates' margins from their answers, by hand."""

from __future__ import annotations

import math

import pytest

from models.generators.questioning import PLACEHOLDERS, QuestionAsking, read_questions, to_request
from models.prompts.library import load_prompt
from models.protocols import TextReply
from models.verifiers.protocol import sigmoid
from models.verifiers.questions import changes_of, combined

ASKING = QuestionAsking(most=3, max_new_tokens=40)


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("make the circle red", ("make the circle red",)),
        ("make it red and blue", ("make it red and blue",)),
        ("remove the star and add a  blue heart", ("remove the star", "add a blue heart")),
        (
            "is darker, has long sleeves and no buttons",
            ("is darker", "has long sleeves", "no buttons"),
        ),
        (
            "Add a dog. Then move the cat, and make it night.",
            ("Add a dog", "Then move the cat", "make it night"),
        ),
        ("same but with a hat; is red", ("same", "with a hat", "is red")),
        ("is red and is red", ("is red",)),
        ("sand and andirons", ("sand and andirons",)),
        (" ... ", ()),
    ],
)
def test_changes_of_a_text(text: str, changes: tuple[str, ...]) -> None:
    assert changes_of(text) == changes


def test_answers_as_one_number() -> None:
    margins = [math.log(4), math.log(1 / 4), 0.0]  # P(yes) .8, .2, .5
    assert combined(margins, "mean") == pytest.approx(0.0)
    assert sigmoid(combined(margins, "share")) == pytest.approx(0.5)
    assert sigmoid(combined(margins, "product")) == pytest.approx(0.08)
    for how in ("mean", "share", "product"):
        assert combined([1.25], how) == pytest.approx(1.25)
    with pytest.raises(ValueError, match="without questions"):
        combined([], "mean")


@pytest.mark.parametrize("how", ["mean", "share", "product"])
def test_extreme_answers_stay_finite_and_ordered(how: str) -> None:
    good, less, bad = (combined(m, how) for m in ([800.0, 700.0], [800.0, 60.0], [800.0, -900.0]))
    assert all(map(math.isfinite, (good, less, bad)))
    assert good > less > bad
    # All but one part in exp(60) is yes.
    assert combined([800.0, 60.0], "product") == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        ("Is it red?\nHas it a hat?", ("Is it red?", "Has it a hat?")),
        (
            "Here are the questions:\n1. Is it red?\n2) Has it 2 hats?",
            ("Is it red?", "Has it 2 hats?"),
        ),
        ("- Is it red?\n- Is it red?\n", ("Is it red?",)),
        ("<think>\nIs it?\n</think>\nIs it red?", ("Is it red?",)),
        ("A?\nB?\nC?\nD?", ("A?", "B?", "C?")),
    ],
)
def test_questions_of_a_reply(text: str, questions: tuple[str, ...]) -> None:
    found = read_questions(TextReply("a", text, finish_reason="stop"), ASKING)
    assert (found.texts, found.status, found.reason) == (questions, "ok", "")


@pytest.mark.parametrize(
    ("reply", "status", "said"),
    [
        (TextReply("a", "It is red."), "rejected", "no line of the reply is a question"),
        (TextReply("a", "Is it red?\nHas it", finish_reason="length"), "rejected", "cut off"),
        (TextReply("a", "", "timeout", "after 2 s"), "timeout", "after 2 s"),
    ],
)
def test_replies_without_questions(reply: TextReply, status: str, said: str) -> None:
    found = read_questions(reply, ASKING)
    assert (found.texts, found.status) == ((), status)
    assert said in found.reason


def test_a_cut_reply_that_holds_all_questions_is_whole() -> None:
    reply = TextReply("a", "A?\nB?\nC?\nD", finish_reason="length")
    assert read_questions(reply, ASKING).texts == ("A?", "B?", "C?")


def test_the_request_names_the_text_and_the_most() -> None:
    request = to_request(
        "k", "make  it\nred", load_prompt("verify_questions", PLACEHOLDERS), ASKING
    )
    assert request.key == "k"
    assert "At most 3 questions" in request.prompt
    assert request.prompt.endswith("Change: make it red\nQuestions:")
    assert (request.temperature, request.max_new_tokens) == (0.0, 40)
