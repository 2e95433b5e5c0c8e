"""Queries of the embedded verifier: which candidates are right, and what is held out."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from embedded_world.edits import Edit
from embedded_world.instruction_reader import apply_instruction
from embedded_world.recipes.measures import area_under_curve
from embedded_world.recipes.verifier_queries import (
    BOTH_THINGS,
    CANDIDATES,
    RELATION,
    RIGHT,
    TWO_EDITS,
    cells_off,
    draw_query,
    elsewhere,
)
from embedded_world.scenes import Thing, is_held_out, make_scene

RED = Thing("small", "solid", "red", "circle")
BLUE = Thing("large", "solid", "blue", "star")


@pytest.mark.parametrize("held_out", [True, False])
def test_first_candidates_are_right_and_no_other_is(held_out: bool) -> None:
    rng = Random(held_out)
    queries = [draw_query(rng, held_out=held_out) for _ in range(60)]
    for query in queries:
        assert len(query.candidates) == CANDIDATES
        fits = [query.wanted.matches(scene) for scene in query.candidates]
        assert fits == [True] * RIGHT + [False] * (CANDIDATES - RIGHT)
        assert [cells_off(query.wanted, scene) == 0 for scene in query.candidates] == fits
        assert {is_held_out(scene) for scene in query.scenes} == {held_out}
        assert query.candidates.count(query.reference) <= 1
    kinds = [query.kind for query in queries]
    assert 15 < kinds.count(TWO_EDITS) < 45


def test_texts_lead_from_the_reference_to_what_is_wanted() -> None:
    """The grammar's own reader of instructions agrees, wherever it knows the text."""
    rng = Random(4)
    read = 0
    for _ in range(80):
        query = draw_query(rng, held_out=False, two_edits=0.0)
        after = apply_instruction(query.text, query.reference)
        read += after is not None
        assert after is None or after == query.wanted
    assert read > 40


def test_half_done_edits_are_among_the_wrong_ones() -> None:
    rng = Random(5)
    queries = [draw_query(rng, held_out=False, two_edits=1.0) for _ in range(40)]
    assert {query.kind for query in queries} == {TWO_EDITS}
    assert all(cells_off(query.wanted, query.reference) >= 2 for query in queries)
    near = [cells_off(q.wanted, scene) for q in queries for scene in q.candidates[RIGHT:]]
    assert near.count(1) > len(near) / 3


@pytest.mark.parametrize("held_out", [True, False])
def test_texts_that_point_lead_to_what_is_wanted(held_out: bool) -> None:
    rng = Random(6)
    queries = [draw_query(rng, held_out=held_out, pointed=1.0) for _ in range(60)]
    kinds = [query.kind for query in queries]
    assert {*kinds} == {RELATION, BOTH_THINGS}
    assert 15 < kinds.count(RELATION) < 45
    for query in queries:
        assert apply_instruction(query.text, query.reference) == query.wanted, query.text
        fits = [query.wanted.matches(scene) for scene in query.candidates]
        assert fits == [True] * RIGHT + [False] * (CANDIDATES - RIGHT)
        assert {is_held_out(scene) for scene in query.scenes} == {held_out}


@pytest.mark.parametrize(
    ("edit", "other"),
    [
        (Edit("colour", 0, replace(RED, colour="pink")), replace(BLUE, colour="pink")),
        (Edit("remove", 0), None),
        (Edit("replace", 0, replace(RED, shape="heart")), replace(RED, shape="heart")),
    ],
)
def test_an_edit_of_another_thing_by_hand(edit: Edit, other: Thing | None) -> None:
    scene = make_scene("white", {0: RED, 4: BLUE})
    assert elsewhere(edit, scene, Random(0)) == scene.put(4, other)


def test_cells_off_by_hand() -> None:
    wanted = make_scene("white", {0: RED, 4: Thing(None, "solid", "blue", "star")})
    assert cells_off(wanted, make_scene("white", {0: RED, 4: BLUE})) == 0
    assert cells_off(wanted, make_scene("black", {0: RED, 4: BLUE})) == 1
    assert cells_off(wanted, make_scene("white", {0: BLUE, 4: BLUE, 8: RED})) == 2
    assert cells_off(wanted, make_scene("black", {4: RED})) == 3


def test_area_by_hand() -> None:
    assert area_under_curve([1.0, 3.0], [0.0, 2.0]) == 0.75
    assert area_under_curve([1.0], [1.0, 0.0]) == 0.75
    assert area_under_curve([0.0], [1.0]) == 0.0
