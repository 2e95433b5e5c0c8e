"""Queries with candidates that a verifier learns from and is measured on.

Each query has two right candidates and six wrong ones that are hard: one thing off the target, the
same edit with another value or of another thing, one of two edits alone, another edit, and at most
once the reference itself. A scene that fits the edited scene is never a wrong candidate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from embedded_world.benchmarks import completions
from embedded_world.edits import Edit, random_edit
from embedded_world.modification_texts import join_texts, modification_text
from embedded_world.pointing import by_relation, group_edits, group_text
from embedded_world.recipes.text_samples import aim_at
from embedded_world.scenes import (
    MAX_THINGS,
    Scene,
    is_held_out,
    random_scene,
    sample_scenes,
)

CANDIDATES: Final = 8
RIGHT: Final = 2
"""Right candidates of a query; they come first."""
TWO_EDITS: Final = "two edits"
"""Kind of a query whose text asks for two edits."""
TWO_EDIT_SHARE: Final = 0.5
RELATION: Final = "by a relation"
"""Kind of a query whose text points at the thing that changes by another one."""
BOTH_THINGS: Final = "both things"
"""Kind of a query whose text asks for a change of two things at once."""
OPEN_SHARE: Final = 0.3
"""Share of queries with one edit that may leave size or fill of a new thing open."""

_Draw = Callable[[], Scene]


@dataclass(frozen=True)
class VerifierQuery:
    """A query and its candidates.

    Attributes:
        reference: What the reference shows.
        text: The modification text.
        wanted: The edited scene; None values fit anything.
        candidates: Scenes, of which the first RIGHT fit `wanted`.
        kind: Kind of the edit, TWO_EDITS, RELATION or BOTH_THINGS.
    """

    reference: Scene
    text: str
    wanted: Scene
    candidates: tuple[Scene, ...]
    kind: str

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """The reference, then the candidates."""
        return (self.reference, *self.candidates)


def draw_query(
    rng: Random,
    *,
    held_out: bool,
    most: int = MAX_THINGS,
    two_edits: float = TWO_EDIT_SHARE,
    pointed: float = 0.0,
    count: int = CANDIDATES,
) -> VerifierQuery:
    """Draw a query all scenes of which are on one side of the split.

    Args:
        rng: Source of randomness.
        held_out: True for evaluation, False for training.
        most: Most things in a reference.
        two_edits: Share of queries with two edits, among those that are not pointed.
        pointed: Share of queries that point by a relation or at both things; half are of each.
        count: How many candidates it has.
    """
    if pointed and rng.random() < pointed:
        draw = _by_relation if rng.random() < 0.5 else _of_both
        return draw(rng, held_out, most, count)
    if rng.random() < two_edits:
        return _with_two_edits(rng, held_out, most, count)
    return _with_one_edit(rng, held_out, most, count)


def cells_off(wanted: Scene, scene: Scene) -> int:
    """In how many cells a scene is not as wanted; the background counts as one."""
    off = int(wanted.background not in (None, scene.background))
    for mine, theirs in zip(wanted.cells, scene.cells, strict=True):
        off += theirs is not None if mine is None else theirs is None or not mine.matches(theirs)
    return off


def _with_one_edit(rng: Random, held_out: bool, most: int, count: int) -> VerifierQuery:
    while True:
        reference = sample_scenes(rng, 1, held_out=held_out, most=most)[0]
        edit = random_edit(reference, rng, open_share=0.5 if rng.random() < OPEN_SHARE else 0.0)
        wanted = edit.apply(reference)
        right = [_complete(wanted, rng) for _ in range(RIGHT)]
        if not wanted.matches(reference) and all(is_held_out(s) == held_out for s in right):
            break

    def same_kind() -> Scene:
        return random_edit(reference, rng, kinds=[edit.kind]).apply(reference)

    wrong: list[tuple[float, _Draw]] = [
        (0.12, lambda: reference),
        (0.48, lambda: _near(right[0], rng)),
        (0.18, same_kind),
        (0.17, lambda: _near(reference, rng)),
        (0.05, lambda: random_scene(rng)),
    ]
    candidates = _candidates(rng, reference, wanted, right, wrong, held_out, count)
    text = modification_text(edit, reference, rng)
    return VerifierQuery(reference, text, wanted, candidates, edit.kind)


def _with_two_edits(rng: Random, held_out: bool, most: int, count: int) -> VerifierQuery:
    while True:
        reference = sample_scenes(rng, 1, held_out=held_out, most=most)[0]
        first = random_edit(reference, rng)
        second = random_edit(reference, rng, avoid=frozenset(first.touched))
        halves = [first.apply(reference), second.apply(reference)]
        wanted = second.apply(halves[0])
        fits = 1 <= len(wanted.occupied) <= MAX_THINGS and not wanted.matches(reference)
        if fits and is_held_out(wanted) == held_out:
            break
    wrong = _half_done(rng, reference, halves, wanted, (0.10, 0.22, 0.43, 0.20, 0.05))
    candidates = _candidates(rng, reference, wanted, [wanted] * RIGHT, wrong, held_out, count)
    text = join_texts([modification_text(edit, reference, rng) for edit in (first, second)])
    return VerifierQuery(reference, text, wanted, candidates, TWO_EDITS)


def _half_done(
    rng: Random,
    reference: Scene,
    halves: Sequence[Scene],
    wanted: Scene,
    shares: Sequence[float],
) -> list[tuple[float, _Draw]]:
    """Wrong candidates of a change in two parts, each with its share.

    They are the reference, one part alone, what is near the target or one part, anything.
    """
    draws: Sequence[_Draw] = (
        lambda: reference,
        lambda: rng.choice(halves),
        lambda: _near(wanted, rng),
        lambda: _near(rng.choice(halves), rng),
        lambda: random_scene(rng),
    )
    return list(zip(shares, draws, strict=True))


def _by_relation(rng: Random, held_out: bool, most: int, count: int) -> VerifierQuery:
    """One edit of a thing that is pointed at by another; another thing changed is a wrong one."""
    while True:
        reference = sample_scenes(rng, 1, held_out=held_out, least=2, most=most)[0]
        edit = random_edit(reference, rng)
        text, wanted = by_relation(edit, reference, rng), edit.apply(reference)
        if text and not wanted.matches(reference) and is_held_out(wanted) == held_out:
            break
    wrong: list[tuple[float, _Draw]] = [
        (0.10, lambda: reference),
        (0.30, lambda: elsewhere(edit, reference, rng)),
        (0.35, lambda: _near(wanted, rng)),
        (0.10, lambda: random_edit(reference, rng, kinds=[edit.kind]).apply(reference)),
        (0.10, lambda: _near(reference, rng)),
        (0.05, lambda: random_scene(rng)),
    ]
    candidates = _candidates(rng, reference, wanted, [wanted] * RIGHT, wrong, held_out, count)
    return VerifierQuery(reference, text, wanted, candidates, RELATION)


def _of_both(rng: Random, held_out: bool, most: int, count: int) -> VerifierQuery:
    """A change of two things at once; only one of the two changed is a wrong one."""
    while True:
        reference = sample_scenes(rng, 1, held_out=held_out, least=2, most=most)[0]
        changes = list(group_edits(reference))
        if not changes:
            continue
        name, first, second = rng.choice(changes)
        halves = [first.apply(reference), second.apply(reference)]
        wanted = second.apply(halves[0])
        if is_held_out(wanted) == held_out:
            break
    wrong = _half_done(rng, reference, halves, wanted, (0.10, 0.30, 0.40, 0.15, 0.05))
    candidates = _candidates(rng, reference, wanted, [wanted] * RIGHT, wrong, held_out, count)
    text = group_text(name, first, rng)
    return VerifierQuery(reference, text, wanted, candidates, BOTH_THINGS)


def elsewhere(edit: Edit, scene: Scene, rng: Random) -> Scene:
    """The scene after an edit of another thing than the one that is meant."""
    cell = rng.choice([each for each in scene.occupied if each != edit.cell])
    return aim_at(edit, cell, scene.thing(cell)).apply(scene)


def _candidates(
    rng: Random,
    reference: Scene,
    wanted: Scene,
    right: list[Scene],
    wrong: list[tuple[float, _Draw]],
    held_out: bool,
    count: int,
) -> tuple[Scene, ...]:
    shares, draws = zip(*wrong, strict=True)
    found = list(right)
    while len(found) < count:
        scene = _complete(rng.choices(draws, shares)[0](), rng)
        # Few edits of a held-out scene are held out, so its own share would fill the list with it.
        repeated = scene == reference and reference in found
        if is_held_out(scene) == held_out and not wanted.matches(scene) and not repeated:
            found.append(scene)
    return tuple(found)


def _near(scene: Scene, rng: Random) -> Scene:
    return random_edit(scene, rng).apply(scene)


def _complete(scene: Scene, rng: Random) -> Scene:
    """The scene with open sizes and fills drawn."""
    return rng.choice(completions(scene))
