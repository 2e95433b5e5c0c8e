"""Candidates in one picture: where they stand, what stands above them, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from models.verifiers.grid import GridPlan, draw_grid, marks_of

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))


def test_places_worked_out_by_hand() -> None:
    """Five pictures stand in three columns and two rows, with gaps of 4 and strips of 12."""
    plan = GridPlan(5, 80)
    assert plan.size == (4 + 3 * 84, 4 + 2 * (12 + 80 + 4))
    assert [plan.corner(i) for i in range(5)] == [(4, 4), (88, 4), (172, 4), (4, 100), (88, 100)]


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (4, 2, 2), (9, 3, 3), (25, 5, 5)]
)
def test_columns_are_as_many_as_rows_or_one_more(count: int, columns: int, rows: int) -> None:
    width, height = GridPlan(count, 96).size
    assert (width, height) == (4 + columns * 100, 4 + rows * (12 + 96 + 4))


def test_each_picture_is_whole_below_its_mark() -> None:
    shapes = [(80, 80), (40, 80), (160, 20), (80, 80), (10, 10)]
    pictures = [
        Image.new("RGB", size, colour) for size, colour in zip(shapes, COLOURS, strict=True)
    ]
    drawn = np.asarray(draw_grid(pictures, 80))
    corners = [(4, 4), (88, 4), (172, 4), (4, 100), (88, 100)]
    # The longer side fills the cell: 80 x 80, 40 x 80, 80 x 10.
    areas = [80 * 80, 40 * 80, 80 * 10, 80 * 80, 80 * 80]
    for (left, top), colour, area in zip(corners, COLOURS, areas, strict=True):
        cell = drawn[top + 12 : top + 92, left : left + 80]
        assert tuple(cell[40, 40]) == colour
        assert (cell == colour).all(axis=-1).sum() == area
        strip = drawn[top : top + 12, left : left + 80]
        assert strip.min() < 60, "a mark is missing"
        outside = np.concatenate([strip[:, :30], strip[:, 50:]], axis=1)
        assert (outside == 255).all(), "a mark is not above the middle"
    assert (drawn[100:, 172:] == 255).all()  # the sixth cell is empty


def test_marks_differ_and_are_the_same_for_any_pictures() -> None:
    first, second = (
        np.asarray(draw_grid([Image.new("RGB", (9, 9), colour)] * 3, 96)) for colour in COLOURS[:2]
    )
    strips = [first[4:16, 4 + 100 * i : 100 + 100 * i] for i in range(2)]
    assert (strips[0] != strips[1]).any()
    np.testing.assert_array_equal(first[4:16], second[4:16])


def test_marks_are_single_characters() -> None:
    assert marks_of(9) == tuple("123456789")
    assert marks_of(10) == tuple("ABCDEFGHIJ")
    assert marks_of(26)[-1] == "Z"
    for count in (0, 27):
        with pytest.raises(ValueError, match=f"1 to 26 pictures, not {count}"):
            marks_of(count)
