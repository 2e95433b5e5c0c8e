"""Samples of instructions that point at a thing by another one, or at two things at once.

An instruction has one clause that points by a relation, two clauses of which at least one does, or
one clause about two things. All clauses are about the scene before, and touch different cells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Final

from embedded_world.captions import leave_open
from embedded_world.edits import ONE_EDIT, Edit, random_edit
from embedded_world.modification_texts import join_texts
from embedded_world.pointing import GROUPED, by_relation, by_relations, group_edits, group_text
from embedded_world.recipes.text_samples import (
    EDIT,
    TRAINING,
    UNPOINTED,
    Mix,
    Sample,
    Split,
    aim_at,
    compose,
    word_caption,
)
from embedded_world.scenes import MAX_THINGS, Scene, random_scene

RELATION: Final = "relation"
RELATIONS: Final = "relations"
BOTH: Final = "both"
POINTED: Final = ("colour", "shape", "size", "fill", "remove", "replace")
"""Kinds of edit that a text by a relation may ask for."""
_SEARCHES: Final = 40
"""Edits tried on one scene before another one is drawn, where the split takes few of them."""

_Asked = tuple[tuple[Edit, ...], Sequence[str]]
"""Edits of one scene, and the clauses that ask for them."""


@dataclass(frozen=True)
class PointingMix:
    """The kind of samples to draw: shares are probabilities per sample.

    Attributes:
        forms: RELATION, RELATIONS and BOTH, with repetition as weights.
        tasks: Tasks to draw from, with repetition as weights.
        pointed: Kinds of edit of a single clause, with repetition as weights.
        kinds: Kinds of edit of two clauses, with repetition as weights.
        varied: Captions in other words than the canonical ones.
        shuffled: Varied captions whose things are also in another order.
        open_scenes: Captions that leave sizes, fills and the background open (0.3 each).
        open_edits: Probability that size, and that fill, of a new thing is left open.
    """

    forms: tuple[str, ...] = (RELATION, RELATIONS, BOTH)
    tasks: tuple[str, ...] = (EDIT,)
    pointed: tuple[str, ...] = POINTED
    kinds: tuple[str, ...] = ONE_EDIT
    varied: float = 0.5
    shuffled: float = 0.4
    open_scenes: float = 0.0
    open_edits: float = 0.0


def draw_pointing(rng: Random, mix: PointingMix, split: Split = TRAINING) -> Sample:
    """Draw one sample; with `TRAINING` nothing in it is held out."""
    task = rng.choice(mix.tasks)
    while True:
        scene, (edits, texts), after = _situation(rng, mix, split)
        said = leave_open(scene, rng, 0.3) if rng.random() < mix.open_scenes else scene
        wanted = said
        for edit in edits:
            if edit.kind not in UNPOINTED and edit.cell is not None:
                edit = aim_at(edit, edit.cell, said.thing(edit.cell))
            wanted = edit.apply(wanted)
        if split.scenes is not False or split.takes_scenes([said, wanted]):
            break
    # A text about two things aims at both of them, which no label of a probe can say.
    aims = tuple(None if edit.kind in UNPOINTED else edit.cell for edit in edits)
    told = word_caption(said, rng, Mix(varied=mix.varied, shuffled=mix.shuffled))
    return compose(
        task,
        (scene, after),
        (said, wanted),
        edits,
        aims if len(texts) == len(edits) else (),
        told,
        join_texts(texts),
    )


def _situation(rng: Random, mix: PointingMix, split: Split) -> tuple[Scene, _Asked, Scene]:
    """A scene, what is asked of it, and the scene after, all on the wanted side of the split.

    The form, and the kind of a single clause, are drawn once and kept until a scene fits.
    """
    form = rng.choice(mix.forms)
    kind = rng.choice(GROUPED if form == BOTH else mix.pointed)
    while True:
        scene = random_scene(rng, least=2)
        if not split.takes_scenes([scene]):
            continue
        tries = _SEARCHES if split.scenes or split.edits else 1
        for named, edits in islice(_proposals(scene, form, kind, rng, mix), tries):
            if not all(split.takes_edit(edit, scene) for edit in edits):
                continue
            after = scene
            for edit in edits:
                after = edit.apply(after)
            if not 1 <= len(after.occupied) <= MAX_THINGS or not split.takes_scenes([after]):
                continue
            texts = _say(scene, form, named, edits, rng)
            if texts:
                return scene, (edits, texts), after


def _proposals(
    scene: Scene, form: str, kind: str, rng: Random, mix: PointingMix
) -> Iterator[tuple[str, tuple[Edit, ...]]]:
    """Edits that a form may ask for, and what is said of the things where it is about two."""
    if form == BOTH:
        changes = [change for change in group_edits(scene) if change[1].kind == kind]
        rng.shuffle(changes)
        yield from ((name, (first, second)) for name, first, second in changes)
        return
    kinds = (kind,) if form == RELATION else mix.kinds
    while True:
        first = random_edit(scene, rng, kinds, open_share=mix.open_edits)
        if form == RELATION:
            yield "", (first,)
            continue
        avoid = frozenset(first.touched)
        yield "", (first, random_edit(scene, rng, kinds, open_share=mix.open_edits, avoid=avoid))


def _say(
    scene: Scene, form: str, named: str, edits: tuple[Edit, ...], rng: Random
) -> Sequence[str] | None:
    """The clauses; None where nothing can be pointed at by a relation."""
    if form == BOTH:
        return [group_text(named, edits[0], rng)]
    if form == RELATION:
        text = by_relation(edits[0], scene, rng)
        return [text] if text else None
    return by_relations(edits, scene, rng)
