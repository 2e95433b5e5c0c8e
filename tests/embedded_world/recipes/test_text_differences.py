"""Differences between captions: what changes, how it is told, and how answers are judged."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from embedded_world.captions import caption, parse_caption
from embedded_world.edits import ONE_EDIT, Edit
from embedded_world.instruction_reader import apply_instruction, read_instruction
from embedded_world.recipes.text_differences import (
    DIFFERENCE,
    MOST_WORDS,
    UNRELATED,
    DifferenceMix,
    changes,
    draw_difference,
)
from embedded_world.recipes.text_prompts import difference_prompt
from embedded_world.recipes.text_samples import HELD_OUT, Sample
from embedded_world.recipes.text_settings import Settings
from embedded_world.scenes import Scene, Thing, is_held_out, is_held_out_edit, make_scene
from tests.fakes.world_reader import edited, fits, picture_of

CIRCLE = Thing("small", "striped", "red", "circle")
STAR = Thing("large", "solid", "blue", "star")
SCENE = make_scene("white", {0: CIRCLE, 4: STAR})  # circle at the top left, star in the center
CROSS = Thing("small", None, "pink", "cross")


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (SCENE, []),
        (replace(SCENE, background="black"), [Edit("background", background="black")]),
        (replace(SCENE, background=None), []),
        (SCENE.put(4, None), [Edit("remove", 4)]),
        (SCENE.put(8, CROSS), [Edit("add", 8, CROSS)]),
        (SCENE.put(4, None).put(5, STAR), [Edit("move", 4, to_cell=5)]),
        # The same thing as far as both captions tell.
        (SCENE.put(4, None).put(5, replace(STAR, size=None)), [Edit("move", 4, to_cell=5)]),
        (SCENE.put(4, None).put(5, CROSS), [Edit("remove", 4), Edit("add", 5, CROSS)]),
        (SCENE.put(4, CROSS), [Edit("replace", 4, CROSS)]),
        (SCENE.put(4, replace(STAR, size=None)), []),
        (
            SCENE.put(4, Thing("small", None, "blue", "star")),
            [Edit("size", 4, replace(STAR, size="small"))],
        ),
    ],
)
def test_changes_by_hand(after: Scene, found: list[Edit]) -> None:
    assert changes(SCENE, after) == found


def test_one_edit_is_told_wholly_in_words_that_another_reader_understands() -> None:
    rng = Random(1)
    kinds = [kind for kind in ONE_EDIT if kind != "replace"]  # may be told in part
    for kind in kinds:
        for _ in range(150):
            sample = draw_difference(rng, DifferenceMix(apart=(1,), kinds=(kind,)))
            assert sample.task == DIFFERENCE
            assert [edit.kind for edit in sample.edits] == [kind]
            assert len(sample.answer.split()) <= MOST_WORDS
            before, after = (picture_of(caption(s)) for s in (sample.scene, sample.after))
            assert fits(edited(before, sample.answer), after)


@pytest.mark.parametrize("apart", [1, 2, 4, UNRELATED])
def test_all_that_is_told_is_true_and_said_by_both_captions(apart: int) -> None:
    from embedded_world.recipes.text_measures import tells_true_changes

    rng = Random(f"apart {apart}")
    told: Counter[int] = Counter()
    for _ in range(700):
        sample = draw_difference(rng, DifferenceMix(apart=(apart,), open_scenes=0.5, varied=0.3))
        captions = sample.prompt.split("caption A: ")[1].split(" answer should")[0]
        said = [parse_caption(text) for text in captions.split(" caption B: ")]
        assert said == [sample.said, sample.wanted]
        assert len(sample.answer.split()) <= MOST_WORDS
        stated = read_instruction(sample.answer, sample.said)
        assert stated, sample
        assert all(change.agrees(sample.wanted) for change in stated), sample
        assert tells_true_changes(sample, sample.answer)
        told[len(sample.edits)] += 1
    assert set(told) <= {1, 2}
    assert apart == 1 or told[2] > told.total() // 4


def test_training_tells_no_held_out_edit_and_shows_no_held_out_scene() -> None:
    settings, rng = Settings(), Random(2)
    for step in (settings.third, settings.settled):
        for _ in range(700):
            sample = draw_difference(rng, settings.difference_mix(step))
            for scene in (sample.scene, sample.after, sample.said, sample.wanted):
                assert not is_held_out(scene)
            for edit in sample.edits:
                held = is_held_out_edit(edit.combination(sample.said))
                assert edit.kind == "background" or not held


def test_held_out_samples_are_held_out() -> None:
    rng = Random(3)
    for _ in range(20):
        sample = draw_difference(rng, DifferenceMix(apart=(1,), open_things=0.0), HELD_OUT)
        assert is_held_out(sample.scene)
        assert is_held_out(sample.after)
        for edit in sample.edits:
            if edit.kind != "background" and edit.thing != sample.after.cells[edit.cell or 0]:
                assert is_held_out_edit(edit.combination(sample.scene))


def asked(after: Scene, answer: str) -> Sample:
    rng = Random(4)
    sample = draw_difference(rng, DifferenceMix())
    return replace(sample, scene=SCENE, said=SCENE, after=after, wanted=after, answer=answer)


def test_answers_are_judged_by_hand() -> None:
    from embedded_world.recipes.text_measures import tells_everything, tells_true_changes

    blue = asked(SCENE.put(0, replace(CIRCLE, colour="blue")), "make the circle blue")
    for judge in (tells_everything, tells_true_changes):
        assert judge(blue, "at the top left paint the red circle blue")
        assert not judge(blue, "make the circle green")
        assert not judge(blue, "make the circle blue and remove the star")
        assert not judge(blue, "make it blue")
    both = asked(
        replace(SCENE, background="black").put(0, CROSS).put(4, None), "remove the blue star"
    )
    assert tells_true_changes(both, "remove the star and make the background black")
    assert not tells_everything(both, "remove the star and make the background black")
    assert tells_true_changes(both, "swap the circle for a pink cross")
    assert not tells_true_changes(both, "swap the circle for a blue cross")
    assert not tells_true_changes(both, "remove the star and make the background gray")
    long = "at the top left replace the red circle with a small pink cross"
    assert apply_instruction(long, SCENE) is not None
    assert not tells_true_changes(both, long)  # thirteen words
    # An attribute that caption B leaves open need not be told, and must not.
    open_size = asked(SCENE.put(0, Thing(None, "striped", "blue", "circle")), "")
    assert tells_everything(open_size, "make the circle blue")
    assert not tells_everything(open_size, "replace the red circle with a small blue circle")


def test_probe_labels_by_hand() -> None:
    from embedded_world.recipes.text_labels import ChangeLabels, DifferenceLabels
    from embedded_world.recipes.text_tokenizer import build_text_tokenizer

    tokenizer = build_text_tokenizer()
    labels = DifferenceLabels(tokenizer, ChangeLabels(tokenizer))
    before = replace(SCENE.put(0, replace(CIRCLE, size=None)))
    caption_b = (
        "with a white backdrop, in the middle a huge solid cyan star, at the top a small red heart"
    )
    ids = tokenizer(difference_prompt(caption(before), caption_b))["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    told = labels.contrast(ids, before)
    assert [(t, x) for t, x in zip(tokens, told, strict=True) if x >= 0] == [
        ("with a white backdrop", 0),
        *[("in the middle", 0), ("a huge", 0), ("solid", 0), ("cyan", 1), ("star", 0)],
        *[("at the top", 1), ("a small", 1), ("red", 1), ("heart", 1)],
    ]
    answer = "remove the red circle and make the background black"
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    assert labels.target(ids, (0, None)) == [0] * 4 + [-1] * 5
