"""Samples of the difference task: two captions, and a change in at most twelve words.

It is InstructCIR's reformulation of two captions. The pair may be one edit apart, a few edits or
wholly unrelated; the answer then tells one or two of the true changes. An attribute that either
caption leaves open is never told as a change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from embedded_world.captions import leave_open
from embedded_world.edits import ONE_EDIT, Edit, random_edit
from embedded_world.modification_texts import join_texts, modification_text
from embedded_world.recipes import text_prompts as prompts
from embedded_world.recipes.text_samples import (
    TRAINING,
    Mix,
    Sample,
    Split,
    draw_situation,
    word_caption,
)
from embedded_world.scenes import ATTRIBUTES, MAX_THINGS, Scene, Thing, random_scene

DIFFERENCE = "difference"
MOST_WORDS = 12
UNRELATED = 0
"""As a number of edits apart: two scenes drawn independently."""

_KINDS = ("colour", "size", "fill", "add", "background", "replace")
DIFFERENCE_KINDS = (*_KINDS, *_KINDS, "shape", "shape", "shape", "remove", "move")
"""Kinds of edit, weighted: shapes are hard to tell, things gone or moved are easy."""
_WORDINGS = 24
"""Wordings tried before fewer changes are told."""


@dataclass(frozen=True)
class DifferenceMix:
    """The kind of pairs and answers to draw: shares are probabilities per sample.

    Attributes:
        apart: Numbers of edits between the scenes, with repetition as weights; or UNRELATED.
        kinds: Kinds of edit to draw from, with repetition as weights.
        varied: Captions in other words than the canonical ones.
        shuffled: Varied captions whose things are also in another order.
        open_scenes: Captions that leave sizes, fills and the background open (0.3 each).
        open_things: Probability that size, and that fill, of a new thing goes unsaid.
        position_first: Share of the changes naming a place that begin with it.
        bare: Prompts without the prose around the captions.
    """

    apart: tuple[int, ...] = (1, 1, 1, 1, 1, 2, 2, 3, 4, UNRELATED)
    kinds: tuple[str, ...] = DIFFERENCE_KINDS
    varied: float = 0.0
    shuffled: float = 0.3
    open_scenes: float = 0.0
    open_things: float = 0.1
    position_first: float = 0.5
    bare: float = 0.0


def changes(before: Scene, after: Scene) -> list[Edit]:
    """Everything that two descriptions say differently, as edits of the first.

    A thing is replaced when its colour or shape is another and so is something else about it; the
    same thing in another cell has moved.
    """
    found = []
    if None not in (before.background, after.background) and before.background != after.background:
        found.append(Edit("background", background=after.background))
    new = [cell for cell in after.occupied if before.cells[cell] is None]
    for cell in before.occupied:
        old, now = before.thing(cell), after.cells[cell]
        if now is not None:
            found += _thing_changes(cell, old, now)
            continue
        goal = next((c for c in new if not _differing(old, after.thing(c))), None)
        if goal is None:
            found.append(Edit("remove", cell))
        else:
            found.append(Edit("move", cell, to_cell=goal))
            new.remove(goal)
    return found + [Edit("add", cell, after.thing(cell)) for cell in new]


def _differing(old: Thing, new: Thing) -> list[str]:
    """Attributes that both descriptions give, and give differently."""
    pairs = {slot: (getattr(old, slot), getattr(new, slot)) for slot in ATTRIBUTES}
    return [slot for slot, pair in pairs.items() if None not in pair and pair[0] != pair[1]]


def _thing_changes(cell: int, old: Thing, new: Thing) -> list[Edit]:
    slots = _differing(old, new)
    looks = {"colour", "shape"} & set(slots)
    if looks and len(slots) > 1:
        return [Edit("replace", cell, new)]
    return [Edit(slot, cell, replace(old, **{slot: getattr(new, slot)})) for slot in slots]


def tell(
    found: Sequence[Edit], scene: Scene, rng: Random, mix: DifferenceMix
) -> tuple[list[Edit], list[str]]:
    """Two of the changes where that fits into twelve words, else one; and the words for each.

    They keep their order: two in any order are harder to learn, and no better to read.
    """
    # A replacement that begins with a place leaves too few words for the new thing.
    first = dict.fromkeys(ONE_EDIT, mix.position_first) | {"replace": 0.0}
    for count in (2, 1):
        if count > len(found):
            continue
        for attempt in range(_WORDINGS):
            share = mix.open_things if attempt < _WORDINGS // 4 else 0.5
            chosen = sorted(rng.sample(range(len(found)), count))
            told = [_leave_open(found[i], rng, share) for i in chosen]
            texts = [
                modification_text(edit, scene, rng, position_first=first[edit.kind])
                for edit in told
            ]
            if len(join_texts(texts).split()) <= MOST_WORDS:
                return told, texts
    raise ValueError(f"no wording of {found} within {MOST_WORDS} words")


def _leave_open(edit: Edit, rng: Random, share: float) -> Edit:
    """The edit with size, and fill, of a new thing unsaid by chance."""
    if edit.kind not in ("add", "replace") or edit.thing is None:
        return edit
    size = None if rng.random() < share else edit.thing.size
    fill = None if rng.random() < share else edit.thing.fill
    return replace(edit, thing=replace(edit.thing, size=size, fill=fill))


def draw_pair(rng: Random, mix: DifferenceMix, split: Split) -> tuple[Scene, Scene]:
    """Two different scenes, both on the wanted side of the split."""
    apart = rng.choice(mix.apart)
    if apart == 1:
        before, _, after = draw_situation(rng, Mix(kinds=mix.kinds), split)
        return before, after
    while True:
        before = random_scene(rng)
        after = random_scene(rng) if apart == UNRELATED else before
        for _ in range(apart):
            after = random_edit(after, rng, mix.kinds, most=MAX_THINGS).apply(after)
        if before != after and split.takes_scenes([before, after]):
            return before, after


def draw_difference(rng: Random, mix: DifferenceMix, split: Split = TRAINING) -> Sample:
    """Draw one sample; with `TRAINING` nothing in it is held out.

    The sample's `said` and `wanted` are the contents of the two captions, its `edits` are told by
    the answer, and its `aims` are their cells.
    """
    while True:
        before, after = draw_pair(rng, mix, split)
        said, wanted = before, after
        if rng.random() < mix.open_scenes:
            said = leave_open(before, rng, 0.3)
            wanted = leave_open(after, rng, 0.3)
        found = changes(said, wanted)
        if not found or not all(split.takes_edit(edit, said) for edit in found):
            continue
        told, texts = tell(found, said, rng, mix)
        if split != TRAINING or (
            split.takes_scenes([said, wanted])
            and all(split.takes_edit(edit, said) for edit in told)
        ):
            break
    wording = Mix(varied=mix.varied, shuffled=mix.shuffled)
    captions = [word_caption(scene, rng, wording) for scene in (said, wanted)]
    prompt = prompts.difference_prompt(*captions, prose=rng.random() >= mix.bare)
    answer = join_texts(texts)
    aims = tuple(edit.cell for edit in told)
    return Sample(
        DIFFERENCE, prompt, answer, before, after, said, wanted, tuple(told), aims, captions[0], ""
    )
