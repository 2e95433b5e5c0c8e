"""Queries with candidates that a verifier learns from and is measured on.

Each query has two right candidates and six wrong ones that are hard: one thing off the target, the
same edit with another value, one of two edits alone, another edit, and at most once the reference
itself. A scene that fits the edited scene is never a wrong candidate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from embedded_world.benchmarks import completions
from embedded_world.edits import random_edit
from embedded_world.modification_texts import join_texts, modification_text
from embedded_world.scenes import MAX_THINGS, Scene, is_held_out, random_scene, sample_scenes

CANDIDATES: Final = 8
RIGHT: Final = 2
"""Right candidates of a query; they come first."""
TWO_EDITS: Final = "two edits"
"""Kind of a query whose text asks for two edits."""
TWO_EDIT_SHARE: Final = 0.5
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
        kind: Kind of the edit, or TWO_EDITS.
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
    count: int = CANDIDATES,
) -> VerifierQuery:
    """Draw a query all scenes of which are on one side of the split.

    Args:
        rng: Source of randomness.
        held_out: True for evaluation, False for training.
        most: Most things in a reference.
        two_edits: Share of queries with two edits.
        count: How many candidates it has.
    """
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
    wrong: list[tuple[float, _Draw]] = [
        (0.10, lambda: reference),
        (0.22, lambda: rng.choice(halves)),
        (0.43, lambda: _near(wanted, rng)),
        (0.20, lambda: _near(rng.choice(halves), rng)),
        (0.05, lambda: random_scene(rng)),
    ]
    candidates = _candidates(rng, reference, wanted, [wanted] * RIGHT, wrong, held_out, count)
    text = join_texts([modification_text(edit, reference, rng) for edit in (first, second)])
    return VerifierQuery(reference, text, wanted, candidates, TWO_EDITS)


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
