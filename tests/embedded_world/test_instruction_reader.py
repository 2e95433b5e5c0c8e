"""The instruction reader against the grammar's own edits, a second reader, and cases by hand."""

from dataclasses import replace
from random import Random

import pytest

from embedded_world.captions import caption
from embedded_world.edits import ONE_EDIT, random_edit
from embedded_world.instruction_reader import apply_instruction, read_instruction
from embedded_world.modification_texts import join_texts, modification_text
from embedded_world.scenes import Scene, Thing, make_scene, random_scene
from embedded_world.words import AT
from tests.fakes.world_reader import edited, picture_of

CIRCLE = Thing("small", "striped", "red", "circle")
STAR = Thing("large", "solid", "blue", "star")
SQUARE = Thing("large", "solid", "red", "square")
SCENE = make_scene("white", {0: CIRCLE, 4: STAR, 8: SQUARE})  # top left, center, bottom right


@pytest.mark.parametrize("kind", ONE_EDIT)
def test_every_wording_of_every_edit_gives_what_the_edit_gives(kind: str) -> None:
    rng = Random(kind)
    for _ in range(1500):
        scene = random_scene(rng, 1 + (kind == "remove"), 3 - (kind == "add"))
        edit = random_edit(scene, rng, (kind,), open_share=0.2)
        text = modification_text(edit, scene, rng, position_first=0.5)
        after = edit.apply(scene)
        if kind == "replace" and edit.thing == scene.cells[edit.cell or 0]:
            continue
        assert apply_instruction(text, scene) == after, (text, caption(scene))
        assert all(change.agrees(after) for change in read_instruction(text, scene) or ())


def test_joined_edits_give_what_both_give() -> None:
    rng = Random(1)
    for _ in range(3000):
        scene = random_scene(rng, least=2)
        first = random_edit(scene, rng, ("move", "remove", "replace", "size"))
        middle = first.apply(scene)
        second = random_edit(
            middle, rng, ("background", "colour", "shape"), avoid=frozenset(first.touched)
        )
        texts = [modification_text(edit, scene, rng) for edit in (first, second)]
        rng.shuffle(texts)
        assert apply_instruction(join_texts(texts), scene) == second.apply(middle)


def test_it_reads_what_another_reader_reads() -> None:
    rng = Random(2)
    for _ in range(3000):
        scene = random_scene(rng)
        text = modification_text(random_edit(scene, rng, open_share=0.2), scene, rng)
        after = apply_instruction(text, scene)
        assert after is not None
        things = [t and (t.size, t.fill, t.colour, t.shape) for t in after.cells]
        assert edited(picture_of(caption(scene)), text) == (after.background, tuple(things))


def put(cell: int, **values: str) -> Scene:
    return SCENE.put(cell, replace(SCENE.thing(cell), **values))


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("make the circle bigger", put(0, size="large")),
        ("at the top left paint the object cyan", put(0, colour="cyan")),
        ("make the star outlined and make the star smaller", SCENE.put(
            4, replace(STAR, fill="outlined", size="small"))),
        ("remove the star and put it on a dotted background",
            replace(SCENE, background="dotted").put(4, None)),
        ("shift the blue star to the left", SCENE.put(4, None).put(3, STAR)),
        ("swap the square for a pink heart", SCENE.put(8, Thing(None, None, "pink", "heart"))),
        ("at the top add a small red star", SCENE.put(1, Thing("small", None, "red", "star"))),
    ],
)  # fmt: skip
def test_readings_by_hand(text: str, after: Scene) -> None:
    assert apply_instruction(text, SCENE) == after


@pytest.mark.parametrize(
    "text",
    [
        "",
        "remove",
        "remove the heart",  # there is none
        "remove the object",  # which one?
        "remove the red circle in the center",  # a star stands there
        "remove the circle and",
        "remove the circle, please",
        "Remove the circle",
        "make the circle red",  # it is
        "make the square bigger",  # it is large
        "make the background white",
        "make the circle blue and paint the red circle pink",  # collide
        "remove the circle and make the circle blue",
        "move the star to the top left",  # taken
        "add a small red star in the center",  # taken
        "add a small red star",  # where?
        "at the top add a small red star on the left",
        "at the top left remove the circle at the top left",
        "at the top make the background black",
        "turn the circle into a blob",
        "make the circle blue and make the star",
    ],
)
def test_whatever_is_not_wholly_clear_is_refused(text: str) -> None:
    assert apply_instruction(text, SCENE) is None
    assert read_instruction(text, SCENE) is None


def test_two_things_alike_need_more_words() -> None:
    scene = SCENE.put(2, replace(STAR, colour="red"))
    assert apply_instruction("remove the star", scene) is None
    assert apply_instruction("remove the red star", scene) == SCENE
    assert apply_instruction("at the top right remove the star", scene) == SCENE


@pytest.mark.parametrize(
    ("text", "after", "agreed"),
    [
        ("paint the circle blue", put(0, colour="blue"), [True]),
        ("paint the circle blue", put(0, colour="green"), [False]),
        ("paint the circle blue", SCENE.put(0, None), [False]),
        ("make the circle large and remove the star", put(0, size="large"), [True, False]),
        ("move the star to the left", SCENE.put(4, None).put(3, STAR), [True, True]),
        ("move the star to the left", SCENE.put(3, STAR), [False, True]),
        ("move the star to the left", SCENE.put(4, None).put(3, replace(STAR, size=None)),
            [True, True]),
        ("move the star to the left", SCENE.put(4, None).put(3, CIRCLE), [True, False]),
        ("swap the star for a red heart", SCENE.put(4, replace(CIRCLE, shape="heart")), [True]),
        ("swap the star for a large red heart", SCENE.put(4, replace(CIRCLE, shape="heart")),
            [False]),
        ("make the background black", replace(SCENE, background=None), [False]),
    ],
)  # fmt: skip
def test_what_agrees_by_hand(text: str, after: Scene, agreed: list[bool]) -> None:
    changes = read_instruction(text, SCENE)
    assert changes is not None
    assert [change.agrees(after) for change in changes] == agreed


def test_it_reads_all_words_that_the_grammar_uses() -> None:
    scene = make_scene("white", {})
    for cell, place in enumerate(AT):
        for background in ("black", "gray", "beige", "checkered", "dotted"):
            text = f"add a red star {place} and make the background {background}"
            wanted = Thing(None, None, "red", "star")
            assert apply_instruction(text, scene) == make_scene(background, {cell: wanted})
