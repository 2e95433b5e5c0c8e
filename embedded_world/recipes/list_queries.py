"""Lists of candidates that a verifier of grids learns from and is measured on.

They are the queries of `verifier_queries` with their candidates in a drawn order, so that the
right one stands at any place: one of them, in some lists two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from embedded_world.recipes.verifier_queries import RIGHT, VerifierQuery, draw_query
from embedded_world.scenes import MAX_THINGS, Scene

TWO_RIGHT_SHARE: Final = 0.15
"""Share of lists of more than three in which two candidates fit."""


@dataclass(frozen=True)
class ListQuery:
    """A query and its candidates in the order in which they are drawn.

    Attributes:
        query: The query; its own candidates are not those of the list.
        candidates: What the pictures of the grid show.
    """

    query: VerifierQuery
    candidates: tuple[Scene, ...]

    @property
    def fits(self) -> tuple[bool, ...]:
        """Which candidates are what the query wants."""
        return tuple(self.query.wanted.matches(scene) for scene in self.candidates)


def draw_list(
    rng: Random,
    count: int,
    *,
    held_out: bool,
    most: int = MAX_THINGS,
    two_edits: float = 0.5,
    two_right: float = TWO_RIGHT_SHARE,
) -> ListQuery:
    """Draw a list all scenes of which are on one side of the split.

    Args:
        rng: Source of randomness.
        count: How many candidates it has.
        held_out: True for evaluation, False for training.
        most: Most things in a reference.
        two_edits: Share of queries with two edits.
        two_right: Share of lists of more than three with two right candidates.
    """
    right = RIGHT if count > 3 and rng.random() < two_right else 1
    query = draw_query(
        rng, held_out=held_out, most=most, two_edits=two_edits, count=count - right + RIGHT
    )
    chosen = [*query.candidates[:right], *query.candidates[RIGHT:]]
    rng.shuffle(chosen)
    return ListQuery(query, tuple(chosen))


def draw_lists(
    rng: Random, number: int, count: int, *, two_edits: float, two_right: float = 0.0
) -> Sequence[ListQuery]:
    """Lists of one length for evaluation."""
    return [
        draw_list(rng, count, held_out=True, two_edits=two_edits, two_right=two_right)
        for _ in range(number)
    ]
