"""Direction markers against texts written out by hand, and against the published rule."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("text", "splitting", "wanted"),
    [
        ("is red and is blue", "words", "[BACKWARD] is red and [BACKWARD] is blue"),
        ("has sand and Andes", "words", "[BACKWARD] has sand and [BACKWARD] Andes"),
        ("has sand", "letters", "[BACKWARD] has sand [BACKWARD]"),
        (
            "one hand and sandals",
            "letters",
            "[BACKWARD] one hand [BACKWARD] and [BACKWARD] sand [BACKWARD] als",
        ),
        ("is red and is blue", "none", "[BACKWARD] is red and is blue"),
        ("", "words", "[BACKWARD]"),
    ],
)
def test_markers_stand_before_every_part(text: str, splitting: str, wanted: str) -> None:
    from models.composed.directions import marked

    assert marked(text, "backward", splitting) == wanted  # type: ignore[arg-type]


def test_directions_differ_in_their_marks_alone() -> None:
    from models.composed.directions import marked

    forward = marked("a b and c", "forward")
    assert forward == marked("a b and c", "backward").replace("BACKWARD", "FORWARD")
