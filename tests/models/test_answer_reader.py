"""Replies as models write them, and the answers that a person finds in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.generators.answer_reader import (
    Question,
    cut_at_stop,
    lost_its_answer,
    read_line,
    read_whole,
)
from models.generators.non_answers import adds_nothing, is_placeholder, refuses, thinks_aloud
from models.generators.repetition import Answered, RepeatedAnswer, check_variety
from models.prompts.library import load_prompt
from tests.fakes.bad_servers import REFUSALS

EDIT = Question(
    "Edited Description:",
    ("Image Content:", "Instruction:", "Objects most likely added:"),
    load_prompt("edit").template,
)

RIGHT = {
    "a red car": "a red car",
    "Edited Description: Edited Description: a red car": "a red car",
    "**Edited Description:** a red car": "a red car",
    "**Edited Description**: a red car": "a red car",
    "### Edited Description\na red car": "a red car",
    "Edited Description:\n\n**a red car**\n\nLet me know if you need more!": "a red car",
    '**"a red car"**': "a red car",
    "- a red car": "a red car",
    "1. a red car\n2. a blue car": "a red car",
    "Voici la description :\na red car": "a red car",
    "Here is the edited description: a red car": "a red car",
    "Okay! a red car": "a red car",
    "The edited description is: a red car": "a red car",
    "Final answer: a red car": "a red car",
    '{"edited_description": "a red car"}': "a red car",
    "<answer>a red car</answer>": "a red car",
    "<THINK>hm</THINK>a red car": "a red car",
    "[THINK]hm[/THINK]a red car": "a red car",
    "◁think▷hm◁/think▷a red car": "a red car",
    "<think></think>\n\na red car": "a red car",
    "<think>a</think><think>b</think>a red car": "a red car",
    "a red car\n<think>was that right?": "a red car",
    "analysisThe user wants a car.assistantfinala red car": "a red car",
    "<|start_header_id|>assistant<|end_header_id|>\n\na red car<|eot_id|>": "a red car",
    "<start_of_turn>model\na red car<end_of_turn>": "a red car",
    "<\uff5cAssistant\uff5c>a red car<\uff5cend\u2581of\u2581sentence\uff5c>": "a red car",
    "a red car</s><s>[INST] next": "a red car",
    load_prompt("edit").render(caption="a dog", text="a cat") + " a red car": "a red car",
    # An answer's own words stay.
    "a sign: keep out": "a sign: keep out",
    "a clock showing 12:30": "a clock showing 12:30",
    "it is against a wall": "it is against a wall",
    "this is a sign: keep out": "this is a sign: keep out",
    "the picture of a clock at 12:30": "the picture of a clock at 12:30",
    'a sign that says "sorry, we are closed"': 'a sign that says "sorry, we are closed"',
    "a hello kitty bag": "a hello kitty bag",
    "no people on a beach": "no people on a beach",
    "a thinking man": "a thinking man",
    "ein roter Wagen auf der Straße": "ein roter Wagen auf der Straße",
    "一辆红色的汽车": "一辆红色的汽车",
}

WRONG = {
    "": "empty",
    " \n": "empty",
    "...": "no words",
    "Edited Description:": "no words",
    "<think>\nOkay, the user wants": "cut off",
    "<think>I think</think>": "no words",
    "<|channel|>analysis<|message|>The user wants": "cut off",
    "Okay, so the user wants me to edit a caption. First, I": "thinks aloud",
    "Hmm, let me think about the picture": "thinks aloud",
    "We need to produce an edited description.": "thinks aloud",
    "Thinking Process:\n1. Look at the picture": "thinks aloud",
    "Sure! Here is the edited description:": "preamble alone",
    "Here is the edited description of the new picture.": "preamble alone",
    "Certainly!": "preamble alone",
    "Here you go!": "preamble alone",
    "None": "placeholder",
    "N/A.": "placeholder",
    "null": "placeholder",
    "[edited description]": "placeholder",
    "<edited description>": "placeholder",
    "no change": "placeholder",
    "Image Content: a dog\nInstruction: a cat": "echo",
    "a dog Instruction: a cat": "echo",
    load_prompt("edit").template.upper(): "echo",
    load_prompt("edit").render(caption="a dog", text="a cat"): "echo",
    '{"status": "failed", "code": 3}': "not a text",
    **dict.fromkeys(REFUSALS, "refusal"),
}


@pytest.mark.parametrize(("raw", "text"), RIGHT.items())
def test_packaging_goes_and_words_stay(raw: str, text: str) -> None:
    assert read_line(raw, EDIT).text == text


@pytest.mark.parametrize(("raw", "kind"), WRONG.items())
def test_what_is_no_answer_says_why(raw: str, kind: str) -> None:
    reading = read_line(raw, EDIT)
    assert reading.text == ""
    assert reading.fault.partition(":")[0] == kind


def annotated(shared_data: Path) -> set[str]:
    """What people wrote about pictures: modification texts of three benchmarks."""

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                own = inner if isinstance(inner, list) else [inner]
                if name in ("caption", "captions", "relative_caption", "shared_concept"):
                    texts.update(text for text in own if isinstance(text, str))
                else:
                    walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    texts: set[str] = set()
    for file in (shared_data / "annotations").rglob("*.json"):
        walk(json.loads(file.read_text(encoding="utf-8")))
    return texts


def test_no_phrase_catches_what_people_write(shared_data: Path) -> None:
    texts = annotated(shared_data)
    assert len(texts) > 20_000
    caught = {text for text in texts if refuses(text) or thinks_aloud(text)}
    assert caught == set()
    empty = {text for text in texts if is_placeholder(text)}
    assert {text.lower() for text in empty} <= {"na", "n/a", "none", "same", "unchanged", "unknown"}
    nothing = {text for text in texts if adds_nothing(text)}
    assert {text.lower().strip(". ") for text in nothing} <= {"na", "n/a", "none", ""}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a red car\n\nImage Content: a dog", "a red car"),
        ("\n\na red car\n\nmore", "\n\na red car"),
        ("Edited Description:\n\na red car\n\nmore", "Edited Description:\n\na red car"),
        ("Sure!\n\na red car\n\nmore", "Sure!\n\na red car"),
        ("<think>a\n\nb</think>\n\na red car\n\nmore", "<think>a\n\nb</think>\n\na red car"),
        ("a\n\nb</think>\n\na red car\n\nmore", "a\n\nb</think>\n\na red car"),
        ("<think>a\n\nb", "<think>a\n\nb"),
        ("a red car", "a red car"),
    ],
)
def test_a_stop_string_cuts_behind_the_first_words_of_the_answer(text: str, kept: str) -> None:
    assert cut_at_stop(text, ("\n\n",)) == kept


@pytest.mark.parametrize("text", ["", "\n\n", "<think>a", "Edited Description:", "Sure!"])
def test_a_reply_that_ended_before_its_answer_is_told(text: str) -> None:
    assert lost_its_answer(text)
    assert not lost_its_answer(f"{text}</think>\na red car")


def test_a_free_text_keeps_its_lines() -> None:
    assert read_whole("<think>x</think>A dog.\nA cat: both.").text == "A dog.\nA cat: both."
    assert read_whole("I'm sorry, I cannot describe people.").fault.startswith("refusal")
    assert read_whole("<think>x").fault.startswith("cut off")


# ------------------------------------------------------------------ one text for all questions


def answered(*answers: str) -> list[Answered]:
    return [
        Answered((f"caption {n}", f"text {n}"), f"prompt {n}", answer)
        for n, answer in enumerate(answers)
    ]


def test_one_text_for_most_questions_is_refused_with_three_examples() -> None:
    with pytest.raises(RepeatedAnswer) as caught:
        check_variety(answered("same", "Same", "b", "same", "c", "same "))
    said = str(caught.value)
    assert "answers to 4 of 6 different questions are one text" in said
    assert [f"'prompt {n}' -> " in said for n in range(6)] == [1, 1, 0, 1, 0, 0]


def test_half_is_not_most_and_few_prove_nothing() -> None:
    check_variety(answered("same", "a", "same", "b", "same", "c", "same", "d"))
    check_variety(answered("same", "same", "same"))
    check_variety([])


def test_captions_of_one_picture_may_have_one_edit() -> None:
    check_variety([Answered((f"caption {n}", "one text"), "p", "same") for n in range(15)])
    check_variety([Answered(("one caption", f"text {n}"), "p", "same") for n in range(15)])


def test_answers_that_repeat_their_questions_are_refused_where_they_may_not() -> None:
    copies = [Answered((f"caption {n}", f"text {n}"), "p", f"Caption {n}") for n in range(6)]
    with pytest.raises(RepeatedAnswer, match="repeat a part of their question"):
        check_variety(copies)
    check_variety(copies, may_copy=True)


WRAPPED = (
    "<reasoning>hm</reasoning>a red car",
    "<thought>hm</thought>\na red car",
    "<|thinking|>hm<|/thinking|>a red car",
    "<seed:think>hm</seed:think>a red car",
    "<reflection>x</reflection>\n<output>a red car</output>",
    "\u200ba red car\u200b",
    "\u202aa red car\u202c",
    "\u300ca red car\u300d",
    "\u201ca red car\u201d",
    "\xaba red car\xbb",
    "\u2018a red car\u2019",
    "\uff02a red car\uff02",
    "&quot;a red car&quot;",
    "`a red car`",
    "~~~\na red car\n~~~",
    '```json\n{"Edited Description": "a red car"}\n```',
    '["a red car"]',
    '{"answer": "a red car"}',
    '{"result": {"edited_description": "a red car"}}',
    "| Edited Description |\n|---|\n| a red car |",
    "> a red car",
    "* a red car",
    "\u2022 a red car",
    "**Answer:** a red car",
    "Response: a red car",
    "Output: a red car",
    "Edited description - a red car",
    "EDITED DESCRIPTION: a red car",
    "edited description\uff1a a red car",
    "The answer is: a red car",
    "Sure thing! Here you go:\n\na red car",
    "Certainly, here's the modified caption:\n\na red car\n",
    "<p>a red car</p>",
    "<b>a red car</b>",
    "\\boxed{a red car}",
    "$\\boxed{\\text{a red car}}$",
    "a red car\n\n(Note: I changed the colour.)",
    "a red car.\n\nExplanation: the colour changed.",
    "Let me think.\nThe car is blue. We change it to red.\nEdited Description: a red car",
    "<|channel|>analysis<|message|>hm<|end|><|channel|>final<|message|>a red car<|return|>",
    "<|im_start|>assistant\na red car<|im_end|>",
    "assistant: a red car",
    "A: a red car",
    "Assistant: a red car",
    "[INST] x [/INST] a red car",
    '**Edited Description:**\n\n> "a red car"',
    "a red car\xa0",
    "a red car<br>",
    "\ufeffa red car",
)
"""Packaging of other models, templates and page builders around "a red car"."""


@pytest.mark.parametrize("raw", WRAPPED, ids=ascii)
def test_whatever_is_around_an_answer_is_taken_off(raw: str) -> None:
    assert read_line(raw, EDIT).text.rstrip(".") == "a red car"


@pytest.mark.parametrize(
    "raw",
    [
        "Request declined.",
        "Error: rate limit exceeded",
        "502 Bad Gateway",
        "Internal Server Error",
        "<html><body>502</body></html>",
        '{"error": "overloaded"}',
        "Thank you.",
        "Done.",
        "I understand.",
    ],
)
def test_what_a_server_says_of_itself_is_not_an_answer(raw: str) -> None:
    found = read_line(raw, EDIT)
    assert found.fault, found


def test_words_that_look_like_packaging_stay() -> None:
    for text in ("a sign that says M&S", "an error message on a screen", "a man > a woman",
                 "a bowl of 500 grapes", "a thank you card", "a: b"):  # fmt: skip
        assert read_line(text, EDIT).text == text
