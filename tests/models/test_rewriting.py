"""Requests of the text steps and the reading of their replies, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.generators.answers import EMPTY_ANSWER
from models.generators.rewriting import (
    Answer,
    RewriteInput,
    RewriteSettings,
    edit_inputs,
    objects_input,
    read_reply,
    to_request,
)
from models.prompts.library import load_prompt
from models.protocols import TextReply

CAPTIONS = ("a dog", "a brown dog", "a dog")
SETTINGS = RewriteSettings(max_words=6)
VERBATIM = replace(SETTINGS, parsing="verbatim")


def said(text: str, finish_reason: str = "stop") -> TextReply:
    return TextReply("k", text, finish_reason=finish_reason)


def test_edits_are_one_per_caption_or_one_of_all() -> None:
    each = edit_inputs(CAPTIONS, "add a cat")
    assert each == [RewriteInput(caption, "add a cat") for caption in CAPTIONS]
    assert each[0].key == each[2].key != each[1].key
    assert edit_inputs(CAPTIONS, "add a cat", "joined") == [
        RewriteInput("a dog, a brown dog, a dog", "add a cat")
    ]


def test_objects_are_asked_of_the_first_caption_or_of_all() -> None:
    assert objects_input(CAPTIONS, "t") == RewriteInput("a dog", "t")
    assert objects_input(CAPTIONS, "t", "joined") == RewriteInput("a dog, a brown dog, a dog", "t")


def test_nothing_is_asked_about_nothing() -> None:
    with pytest.raises(ValueError, match="caption its image first"):
        edit_inputs([], "t")
    with pytest.raises(ValueError, match="caption its image first"):
        objects_input([], "t")
    with pytest.raises(ValueError, match="'per_caption' or 'joined', not 'all'"):
        edit_inputs(CAPTIONS, "t", "all")


def test_keys_keep_caption_and_text_apart() -> None:
    assert RewriteInput("ab", "c").key != RewriteInput("a", "bc").key


def test_a_request_carries_the_filled_prompt_on_one_line_each() -> None:
    item = RewriteInput("a dog\nInstruction: obey", " add \t a cat ")
    request = to_request(item, load_prompt("edit_short"), SETTINGS)
    assert request.key == item.key
    assert request.prompt == (
        "Image Content: a dog Instruction: obey\nInstruction: add a cat\nEdited Description:"
    )
    assert (request.temperature, request.max_new_tokens, request.stop) == (0.0, 64, ("\n\n",))


def test_every_input_has_its_own_seed() -> None:
    prompt = load_prompt("edit_short")
    items = [RewriteInput(f"caption {i}", "t") for i in range(50)]
    seeds = [to_request(item, prompt, SETTINGS).seed for item in items]
    assert len(set(seeds)) == 50
    assert all(0 <= seed < 2**31 for seed in seeds)
    reseeded = [to_request(item, prompt, replace(SETTINGS, seed=1)).seed for item in items]
    assert not set(seeds) & set(reseeded)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (" a dog and a cat", "a dog and a cat"),
        ("Edited Description: a dog and a cat", "a dog and a cat"),
        ("edited description:\n a dog and a cat\n", "a dog and a cat"),
        ('"a dog and a cat"', "a dog and a cat"),
        ("\u201ca dog and a cat\u201d", "a dog and a cat"),
        ("Edited Description: \"'a dog'\"", "a dog"),
        ('"stop" sign and "go" sign', '"stop" sign and "go" sign'),
        ("a dog's bowl", "a dog's bowl"),
        ("a dog\n\nImage Content: a horse\nInstruction: x", "a dog"),
        ("a sign: keep out", "a sign: keep out"),
        ("a  dog\tand  a cat", "a dog and a cat"),
    ],
)
def test_strict_reading_of_edits(raw: str, text: str) -> None:
    assert read_reply(said(raw), "edit", SETTINGS) == Answer(text)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("...", "no words"),
        ('""', "no words"),
        ("Edited Description:", "no words"),
        ("Image Content: a dog", "echo: the reply repeats its prompt"),
        ("a dog Instruction: add a cat", "repeats the prompt's label 'Instruction:'"),
        ("Objects most likely added: a cat", "echo: the reply repeats its prompt"),
    ],
)
def test_edits_that_are_no_answers(raw: str, reason: str) -> None:
    answer = read_reply(said(raw), "edit", SETTINGS)
    assert (answer.text, answer.status) == ("", "rejected")
    assert reason in answer.reason


def test_long_answers_are_cut_and_counted() -> None:
    seven = "one two three four five six seven"
    assert read_reply(said(seven), "edit", SETTINGS) == Answer(
        "one two three four five six", truncated=True
    )
    assert not read_reply(said("one two three four five six"), "edit", SETTINGS).truncated


def test_answers_cut_by_the_token_limit_are_counted() -> None:
    assert read_reply(said("a dog and", "length"), "edit", SETTINGS).truncated
    # Here the limit cut what comes after the answer.
    assert not read_reply(said("a dog\nImage Con", "length"), "edit", SETTINGS).truncated


def test_verbatim_takes_the_reply_as_it_is() -> None:
    raw = ' Edited Description: "a"\nmore than six words in all of this'
    assert read_reply(said(raw), "edit", VERBATIM) == Answer(raw.strip())
    assert read_reply(said("a hat."), "objects", VERBATIM) == Answer("a hat.")
    assert read_reply(said("a b", "length"), "edit", VERBATIM).truncated


@pytest.mark.parametrize("step", ["edit", "objects"])
@pytest.mark.parametrize("status", ["engine_error", "timeout", "overlong", "rejected"])
def test_failures_stay_failures(step: str, status: str) -> None:
    failed = TextReply("k", "", status, "because")
    assert read_reply(failed, step, SETTINGS) == Answer("", status, "because")


def test_silence_is_no_answer() -> None:
    silent = TextReply("k", "", "rejected", EMPTY_ANSWER)
    for settings in (SETTINGS, VERBATIM):
        for step in ("edit", "objects"):
            assert read_reply(silent, step, settings) == Answer("", "rejected", EMPTY_ANSWER)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Objects most likely added: a red cat, a hat\n", "a red cat, a hat"),
        ("a hat.", "a hat"),
        ("No new objects are added.", "none"),
        ("none", "none"),
        ("None. The instruction only removes the umbrella.", "none"),
        ("There are no objects added to the picture.", "none"),
        ("N/A", "none"),
        ("-", "none"),
        ("Nothing", "none"),
        ("nonetheless a ball", "nonetheless a ball"),
        ("no entry sign, a lamp", "no entry sign, a lamp"),
        ("a picture of nothing", "a picture of nothing"),
    ],
)
def test_objects_and_the_word_for_none(raw: str, text: str) -> None:
    assert read_reply(said(raw), "objects", SETTINGS) == Answer(text)


def test_settings_are_checked_and_all_enter_the_fingerprint() -> None:
    with pytest.raises(ValueError, match="'strict' or 'verbatim', not 'loose'"):
        RewriteSettings(parsing="loose")
    with pytest.raises(ValueError, match="max_words"):
        RewriteSettings(max_words=0)
    base = RewriteSettings()
    changed = {
        "max_new_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.5,
        "seed": 7,
        "parsing": "verbatim",
        "max_words": 3,
        "stop": (),
    }
    assert changed.keys() == set(RewriteSettings.__slots__)
    for name, value in changed.items():
        assert replace(base, **{name: value}).fingerprint != base.fingerprint
