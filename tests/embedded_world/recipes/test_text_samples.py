"""The text generator's data: answers that a reader would give, and nothing held out in training."""

from dataclasses import replace
from random import Random

import pytest

from embedded_world.captions import caption, parse_caption, parse_thing
from embedded_world.edits import ONE_EDIT, Edit
from embedded_world.modification_texts import join_added
from embedded_world.recipes.text_prompts import edit_prompt
from embedded_world.recipes.text_samples import (
    ADDED,
    EDIT,
    HELD_OUT,
    TRAINING,
    Mix,
    Pointer,
    carry_out,
    draw_sample,
    read_pointer,
)
from embedded_world.recipes.text_settings import KIND_WEIGHTS, Settings
from embedded_world.scenes import Scene, Thing, content, is_held_out, is_held_out_edit, make_scene

CIRCLE = Thing("small", "striped", "red", "circle")
STAR = Thing("large", "solid", "blue", "star")
SCENE = make_scene("white", {0: CIRCLE, 4: STAR})  # circle at the top left, star in the center


def believed(edit: Edit, text: str) -> Scene:
    scene = carry_out([edit], [text], SCENE)
    assert scene is not None
    return scene


@pytest.mark.parametrize(
    ("edit", "text", "expected"),
    [
        (
            Edit("colour", 0, replace(CIRCLE, colour="green")),
            "at the top left paint the red circle green",
            "at the top left a small striped green circle, in the center a large solid blue star, "
            "on a white background",
        ),
        (
            Edit("move", 0, to_cell=8),
            "shift the circle to the bottom right",
            "in the center a large solid blue star, "
            "at the bottom right a small striped red circle, on a white background",
        ),
        (
            Edit("remove", 4),
            "take away the object in the center",
            "at the top left a small striped red circle, on a white background",
        ),
        (
            Edit("replace", 4, Thing(None, "outlined", "pink", "cross")),
            "swap the blue star for an outlined pink cross",
            "at the top left a small striped red circle, in the center an outlined pink cross, "
            "on a white background",
        ),
        (
            Edit("background", background="dotted"),
            "put it on a dotted background",
            "at the top left a small striped red circle, in the center a large solid blue star, "
            "on a dotted background",
        ),
    ],
)
def test_answers_by_hand(edit: Edit, text: str, expected: str) -> None:
    assert caption(believed(edit, text)) == expected


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("make the circle blue", Pointer(None, None, "circle")),
        ("at the top paint the red star green", Pointer(1, "red", "star")),
        ("move the object on the left to the top left", Pointer(3, None, None)),
        ("take away the pink cross at the bottom right", Pointer(8, "pink", "cross")),
    ],
)
def test_pointers_by_hand(text: str, pointer: Pointer) -> None:
    assert read_pointer(text) == pointer


def test_a_wrong_caption_is_read_as_a_believer_of_the_instruction_reads_it() -> None:
    blue = Edit("colour", 0, Thing("small", "solid", "blue", "square"))
    # The place is named: the thing there is meant, and the instruction's words for it are believed.
    named = believed(blue, "make the red square at the top left blue")
    assert named == SCENE.put(0, replace(CIRCLE, shape="square", colour="blue"))
    # Only its looks are named: the same colour comes before the same shape.
    by_colour = believed(blue, "make the red star blue")
    assert by_colour == SCENE.put(0, replace(CIRCLE, shape="star", colour="blue"))
    by_shape = believed(blue, "make the green star blue")
    assert by_shape == SCENE.put(4, STAR)
    # Nothing fits: the caption stays.
    assert believed(blue, "make the pink heart blue") == SCENE
    assert believed(blue, "make the red square on the right blue") == SCENE


def test_references_of_two_edits_are_both_about_the_scene_before() -> None:
    edits = [
        Edit("colour", 0, replace(CIRCLE, colour="blue")),
        Edit("shape", 4, replace(STAR, shape="heart")),
    ]
    texts = ["make the circle blue", "turn the blue star into a heart"]
    assert carry_out(edits, texts, SCENE) == carry_out(edits[::-1], texts[::-1], SCENE)
    same = Edit("colour", 0, replace(CIRCLE, colour="green"))
    assert carry_out([edits[0], same], [texts[0], "paint the circle green"], SCENE) is None
    # A thing that already stands where it should go stays, as the instruction describes it.
    there = Edit("move", 8, to_cell=0)
    moved = carry_out([there], ["move the red star to the top left"], SCENE)
    assert moved == SCENE.put(0, replace(CIRCLE, shape="star"))


def test_right_captions_give_the_grammar_s_own_edits() -> None:
    rng = Random(3)
    for two in (0.0, 1.0):
        mix = Mix(tasks=(EDIT,), two=two, open_edits=0.3)
        for _ in range(400):
            sample = draw_sample(rng, mix)
            after = sample.scene
            for edit in sample.edits:
                after = edit.apply(after)
            assert sample.wanted == after == sample.after
            assert sample.answer == caption(after)
            assert parse_caption(sample.caption) == sample.scene
            assert len(sample.edits) == 1 + int(two)


def test_two_edits_commute() -> None:
    rng = Random(4)
    for _ in range(200):
        sample = draw_sample(rng, Mix(two=1.0))
        backwards = sample.scene
        for edit in reversed(sample.edits):
            backwards = edit.apply(backwards)
        assert backwards == sample.after


def test_open_captions_stay_open_where_the_edit_says_nothing() -> None:
    rng = Random(5)
    for _ in range(300):
        sample = draw_sample(rng, Mix(open_scenes=1.0))
        assert sample.said.matches(sample.scene)
        assert sample.wanted.matches(sample.after)
        for cell, thing in enumerate(sample.wanted.cells):
            said = sample.said.cells[cell]
            if cell not in sample.edits[0].touched and thing is not None:
                assert said == thing


def test_added_answers_by_hand() -> None:
    adds = [Edit("add", 1, Thing("small", None, "cyan", "heart")), Edit("replace", 4, CIRCLE)]
    assert join_added(adds) == "a small cyan heart, a small striped red circle"
    rng = Random(6)
    for _ in range(200):
        sample = draw_sample(rng, Mix(tasks=(ADDED,)))
        brings = sample.edits[0].kind in ("add", "replace")
        assert (sample.answer == "none") != brings
        assert not brings or parse_thing(sample.answer) == sample.edits[0].thing


def test_training_sees_nothing_held_out() -> None:
    settings = Settings()
    rng = Random(7)
    kinds = set()
    for step in (0, settings.first, settings.second):
        for _ in range(700):
            sample = draw_sample(rng, settings.mix(step), TRAINING)
            for scene in (sample.scene, sample.after, sample.said, sample.wanted):
                assert not is_held_out(scene)
            now = sample.scene
            for edit in sample.edits:
                kinds.add(edit.kind)
                assert not is_held_out_edit(edit.combination(now)) or edit.kind == "background"
                now = edit.apply(now)
    assert kinds == set(ONE_EDIT) == set(KIND_WEIGHTS)


def test_evaluation_sees_only_what_is_held_out_and_shares_nothing_with_training() -> None:
    from embedded_world.recipes.text_measures import TEST_SETS, draw_samples

    rng = Random(8)
    trained = {
        content(scene)
        for _ in range(1000)
        for sample in [draw_sample(rng, Settings().mix(10**6), TRAINING)]
        for scene in (sample.said, sample.wanted)
    }
    for test in TEST_SETS:
        for sample in draw_samples(test, 6):
            assert is_held_out(sample.scene)
            assert is_held_out(sample.after)
            assert not {content(sample.scene), content(sample.after)} & trained
            if test.split == HELD_OUT and isinstance(test.mix, Mix) and len(sample.edits) == 1:
                [edit] = sample.edits
                held = is_held_out_edit(edit.combination(sample.scene))
                assert held or edit.kind == "background"


def test_aim_labels_by_hand() -> None:
    from embedded_world.recipes.text_labels import AimLabels
    from embedded_world.recipes.text_tokenizer import build_text_tokenizer

    tokenizer = build_text_tokenizer()
    instruction = "at the top paint the circle green and remove the object in the center"
    ids = tokenizer(edit_prompt(caption(SCENE), instruction))["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    aimed, spread = AimLabels(tokenizer)(ids, (0, 4), SCENE)
    assert [(t, a) for t, a in zip(tokens, aimed, strict=True) if a >= 0] == [
        ("circle", 0),
        ("in the center", 4),
    ]
    assert [(t, a) for t, a in zip(tokens, spread, strict=True) if a >= 0] == [("green", 0)]
    nothing = AimLabels(tokenizer)(ids, (None, None), SCENE)
    assert nothing == ([-1] * len(ids), [-1] * len(ids))


def test_change_labels_by_hand() -> None:
    from embedded_world.recipes.text_labels import ChangeLabels
    from embedded_world.recipes.text_tokenizer import build_text_tokenizer

    tokenizer = build_text_tokenizer()
    labels = ChangeLabels(tokenizer)
    # The star turned green and the circle vanished: "in the center" is not the next place said.
    answer = tokenizer(
        "in the center a large solid green star, on a white background", add_special_tokens=False
    )["input_ids"]
    #                                  place size fill colour shape , ground
    assert labels(answer, SCENE) == [1, 0, 0, 1, 0, -1, 0]
