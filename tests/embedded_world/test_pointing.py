"""Texts that point by relations and at two things, read back by the strict reader."""

from random import Random

import pytest

from embedded_world.edits import ONE_EDIT, random_edit
from embedded_world.instruction_reader import apply_instruction
from embedded_world.modification_texts import join_texts
from embedded_world.pointing import (
    by_relation,
    by_relations,
    group_edits,
    group_text,
    groups,
    relations,
)
from embedded_world.scenes import ATTRIBUTES, Scene, Thing, make_scene, random_scene

CIRCLE = Thing("small", "striped", "red", "circle")
STAR = Thing("large", "solid", "blue", "star")
OTHER = Thing("large", "outlined", "red", "star")


def scene_of(**places: Thing) -> Scene:
    """A scene of things by `cNUMBER`, the number of the cell."""
    return make_scene("white", {int(name[1:]): thing for name, thing in places.items()})


@pytest.mark.parametrize("kind", ONE_EDIT)
def test_a_text_with_a_relation_means_its_edit(kind: str) -> None:
    rng, said = Random(kind), 0
    for _ in range(1500):
        scene = random_scene(rng, least=2, most=3 - (kind == "add"))
        edit = random_edit(scene, rng, (kind,))
        text = by_relation(edit, scene, rng)
        if text is None:
            continue
        said += 1
        if edit.apply(scene) != scene:
            assert apply_instruction(text, scene) == edit.apply(scene), text
    assert (said > 500) == (kind not in ("add", "background", "move"))


def test_two_edits_of_one_text_are_both_about_the_scene_before() -> None:
    rng, said = Random(1), 0
    for _ in range(1500):
        scene = random_scene(rng, least=2)
        first = random_edit(scene, rng)
        second = random_edit(scene, rng, avoid=frozenset(first.touched))
        texts = by_relations((first, second), scene, rng)
        after = second.apply(first.apply(scene))
        if texts is None or not 1 <= len(after.occupied) <= 3:
            continue
        said += 1
        if first.apply(scene) != scene != second.apply(scene):
            assert apply_instruction(join_texts(texts), scene) == after, texts
    assert said > 500


def test_a_text_about_two_things_means_both_edits() -> None:
    rng, kinds = Random(2), set()
    for _ in range(400):
        scene = random_scene(rng, least=2)
        for name, first, second in group_edits(scene):
            kinds.add(first.kind)
            text = group_text(name, first, rng)
            assert apply_instruction(text, scene) == second.apply(first.apply(scene)), text
    assert kinds == {*ATTRIBUTES, "remove"}


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("make the object to the left of the blue star large",
            scene_of(c0=Thing("large", "striped", "red", "circle"), c4=STAR)),
        ("remove the circle above the blue star", scene_of(c4=STAR)),
        ("turn the star below the red circle into a heart",
            scene_of(c0=CIRCLE, c4=Thing("large", "solid", "blue", "heart"))),
        ("paint both objects pink", scene_of(
            c0=Thing("small", "striped", "pink", "circle"),
            c4=Thing("large", "solid", "pink", "star"))),
        ("change the two objects into crosses", scene_of(
            c0=Thing("small", "striped", "red", "cross"),
            c4=Thing("large", "solid", "blue", "cross"))),
    ],
)  # fmt: skip
def test_readings_by_hand(text: str, after: Scene) -> None:
    assert apply_instruction(text, scene_of(c0=CIRCLE, c4=STAR)) == after


@pytest.mark.parametrize(
    "text",
    [
        "make the object to the right of the blue star large",  # nothing lies there
        "make the star above the blue star large",  # a circle does
        "make the object above the green star large",  # no such star
        "make both objects red",  # one is
        "make both circles blue",  # there is one
        "remove both red objects",  # there is one
        "at the top left make the object above the blue star large",  # pointed at twice
    ],
)
def test_what_is_not_clear_is_refused(text: str) -> None:
    assert apply_instruction(text, scene_of(c0=CIRCLE, c4=STAR)) is None


def test_pointing_phrases_by_hand() -> None:
    """The circle is at the top left, stars in the center and at the right of the same row."""
    scene = scene_of(c0=CIRCLE, c4=STAR, c5=OTHER)
    assert relations(scene, 4) == ["the star to the left of the red star"]  # so does the circle
    assert sorted(relations(scene, 5)) == [
        "the object to the right of the blue star",
        "the star to the right of the blue star",
    ]
    assert groups(scene) == {"red objects": (0, 5), "stars": (4, 5)}
