"""Samples that point: answers by an independent reader, labels by hand, what is held out."""

from __future__ import annotations

from random import Random

import pytest

from embedded_world.captions import caption
from embedded_world.instruction_reader import apply_instruction
from embedded_world.recipes.pointing_samples import (
    BOTH,
    RELATION,
    RELATIONS,
    PointingMix,
    draw_pointing,
)
from embedded_world.recipes.pointing_settings import PointingSettings
from embedded_world.recipes.text_differences import DIFFERENCE
from embedded_world.recipes.text_prompts import edit_prompt
from embedded_world.recipes.text_samples import ADDED, COPY, EDIT, HELD_OUT_SCENES
from embedded_world.scenes import Thing, is_held_out, is_held_out_edit, make_scene

SCENE = make_scene(
    "white",
    {
        1: Thing("small", "solid", "red", "circle"),
        3: Thing("large", "striped", "blue", "star"),
        8: Thing("large", "outlined", "pink", "star"),
    },
)


@pytest.mark.parametrize("form", [RELATION, RELATIONS, BOTH])
@pytest.mark.parametrize("open_scenes", [0.0, 1.0])
def test_an_independent_reader_writes_the_same_answer(form: str, open_scenes: float) -> None:
    rng = Random(form)
    read = 0
    for _ in range(300):
        sample = draw_pointing(rng, PointingMix(forms=(form,), open_scenes=open_scenes))
        assert sample.answer == caption(sample.wanted)
        after = apply_instruction(sample.instruction, sample.said)
        # It refuses an edit that changes nothing, and a size "bigger" than one left open is one.
        read += after is not None
        assert after is None or after == sample.wanted, sample.prompt
    assert read > 290


def test_the_answer_about_new_things_names_those_of_all_clauses() -> None:
    rng = Random(2)
    mix = PointingMix(forms=(RELATIONS,), tasks=(ADDED,), kinds=("replace",))
    for _ in range(30):
        sample = draw_pointing(rng, mix)
        assert [" ".join(name.split()) for name in sample.answer.split(", ")] == [
            part.split(" with ")[-1].split(" for ")[-1]
            for part in sample.instruction.split(" and ")
        ]


def test_training_sees_nothing_held_out_and_evaluation_only_held_out_scenes() -> None:
    rng = Random(3)
    for _ in range(300):
        sample = draw_pointing(rng, PointingMix(open_scenes=0.3, open_edits=0.3))
        scenes = (sample.scene, sample.after, sample.said, sample.wanted)
        assert not any(map(is_held_out, scenes))
        assert not any(
            is_held_out_edit(edit.combination(sample.scene))
            for edit in sample.edits
            if edit.kind != "background"
        )
    for _ in range(20):
        sample = draw_pointing(rng, PointingMix(), HELD_OUT_SCENES)
        assert is_held_out(sample.scene)
        assert is_held_out(sample.after)


def test_a_training_draws_what_points_and_all_that_it_knew() -> None:
    rng = Random(4)
    settings = PointingSettings()
    samples = [settings.draw(rng, 0) for _ in range(600)]
    assert {sample.task for sample in samples} == {EDIT, ADDED, COPY, DIFFERENCE}
    words = (" of the ", " above ", " below ", "both ", "the two ")
    pointed = sum(any(word in sample.instruction for word in words) for sample in samples)
    assert abs(pointed / 600 - settings.pointing_share) < 0.1


def test_the_rate_falls_once() -> None:
    settings = PointingSettings(steps=1000, fifth_lr=1.0, warm_up=10)
    rates = [settings.rate(step) for step in (0, 9, 500, 999)]
    assert rates == pytest.approx([0.1, 0.991, 0.5, 0.01])


@pytest.mark.slow
def test_the_other_thing_s_noun_is_asked_for_its_own_cell() -> None:
    from embedded_world.recipes.pointing_model import build_pointing_tokenizer
    from embedded_world.recipes.text_labels import AimLabels

    tokenizer = build_pointing_tokenizer()
    instruction = "turn the star below the red circle into a cross and make the blue star small"
    ids = tokenizer(edit_prompt(caption(SCENE), instruction))["input_ids"]
    assert tokenizer.unk_token_id not in ids
    tokens = tokenizer.convert_ids_to_tokens(ids)
    aimed, spread = AimLabels(tokenizer)(ids, (8, 3), SCENE)
    assert [(t, a) for t, a in zip(tokens, aimed, strict=True) if a >= 0] == [
        ("circle", 1),
        ("star", 3),
    ]
    assert [(t, a) for t, a in zip(tokens, spread, strict=True) if a >= 0] == [("small", 3)]
