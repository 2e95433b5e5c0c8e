"""The tokenizer and prompts of the text generator's recipe."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from embedded_world.captions import caption, name_thing, varied_caption
from embedded_world.edits import random_edit
from embedded_world.modification_texts import modification_text
from embedded_world.recipes import text_prompts
from embedded_world.scenes import (
    BACKGROUNDS,
    COLOURS,
    FILLS,
    SHAPES,
    SIZES,
    Thing,
    make_scene,
    random_scene,
)
from embedded_world.words import phrases
from models.prompts.library import load_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    from embedded_world.recipes.text_tokenizer import build_text_tokenizer

    return build_text_tokenizer()


def spelled(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_tokens_of_a_hand_worked_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = text_prompts.edit_prompt(
        "at the top left a small striped red circle, on a white background",
        "make the red circle blue and add an outlined pink star at the top",
    )
    assert tokenizer.convert_ids_to_tokens(tokenizer(prompt)["input_ids"]) == [
        *("<s>", "image content:", "at the top left", "a small", "striped", "red", "circle", ","),
        *("on a white background", "instruction:", "make", "the", "red", "circle", "blue", "and"),
        *("add", "an", "outlined", "pink", "star", "at the top", "edited description:"),
    ]


def test_every_phrase_of_the_language_comes_back_as_it_was(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    known = [phrase for phrase in phrases() if phrase != "."]
    assert [spelled(tokenizer, phrase) for phrase in known] == known


def test_every_thing_in_every_cell_comes_back_as_it_was(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = Random(0)
    for size in (None, *SIZES):
        for fill in (None, *FILLS):
            for colour in COLOURS:
                for shape in SHAPES:
                    things = {
                        cell: Thing(size, fill, colour, shape) for cell in (rng.randrange(9), 4)
                    }
                    text = caption(make_scene(rng.choice(BACKGROUNDS), things))
                    assert spelled(tokenizer, text) == text
                    noun = name_thing(things[4], rng, synonyms=0.5)
                    assert spelled(tokenizer, f"{noun}, {noun}") == f"{noun}, {noun}"


def test_varied_captions_and_instructions_come_back_as_they_were(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rng = Random(1)
    for _ in range(1500):
        scene = random_scene(rng)
        told = varied_caption(scene, rng, shuffle=True, synonyms=0.5, lead_in=0.5)
        edit = random_edit(scene, rng, open_share=0.3)
        text = modification_text(edit, scene, rng)
        assert spelled(tokenizer, told) == told
        assert spelled(tokenizer, text) == text


def test_case_line_breaks_and_full_stops_do_not_matter(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = tokenizer("instruction: make the red circle blue")["input_ids"]
    assert tokenizer("Instruction:\n\nMake the RED circle blue.\n")["input_ids"] == plain
    assert tokenizer.unk_token_id not in plain


def test_a_chat_message_is_the_raw_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = text_prompts.added_prompt("in the center a large solid red heart", "add a blue star")
    message = [{"role": "user", "content": prompt}]
    chat = tokenizer.apply_chat_template(message, tokenize=True, add_generation_prompt=True)
    assert chat["input_ids"] == tokenizer(prompt)["input_ids"]
    assert tokenizer.apply_chat_template(message, tokenize=False) == "<s>" + prompt


def test_labels_of_all_three_tasks_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    for label in text_prompts.LABELS:
        assert len(tokenizer(label, add_special_tokens=False)["input_ids"]) == 1


def test_tokens_of_a_hand_worked_difference_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = load_prompt("instructcir_difference", ("caption_a", "caption_b")).render(
        caption_a="at the top a small red star", caption_b="at the top a small red heart"
    )
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(prompt)["input_ids"])
    assert tokens == [
        *("<s>", text_prompts.DIFFERENCE_TASK.lower()),
        *("caption a:", "at the top", "a small", "red", "star"),
        *("caption b:", "at the top", "a small", "red", "heart"),
        *(text_prompts.DIFFERENCE_RULES.lower(), "difference:"),
    ]


def test_the_difference_prompt_is_the_one_that_ships() -> None:
    captions = ("in the center a large star", "in the center a small star, on a white background")
    shipped = load_prompt("instructcir_difference", ("caption_a", "caption_b"))
    rendered = shipped.render(caption_a=captions[0], caption_b=captions[1])
    assert text_prompts.difference_prompt(*captions) == rendered
    bare = text_prompts.difference_prompt(*captions, prose=False)
    assert bare == f"caption A: {captions[0]} caption B: {captions[1]} Difference:"


def test_tokens_that_older_weights_know_keep_their_ids() -> None:
    from embedded_world.recipes.text_tokenizer import vocabulary

    tokens = vocabulary()
    assert len(tokens) == 156
    assert tokens[:6] == ["<pad>", "<s>", "</s>", "<unk>", "image content:", "instruction:"]
    assert tokens[153] == "it's"  # the last of the 154 of the first two training cycles
    more = vocabulary(("above", "red", "stars"))
    assert more == [*tokens, "above", "stars"]
