"""Training and evaluation texts of the embedded text generator, made from drawn scenes.

A sample starts from a full scene and one or two edits of it. The caption may leave attributes
open or misdescribe the thing that the instruction is about, as generated captions do; the answer
is then written as by a reader who believes the instruction.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from embedded_world.captions import caption, leave_open, varied_caption
from embedded_world.edits import ONE_EDIT, Edit, random_edit
from embedded_world.modification_texts import join_added, join_texts, modification_text
from embedded_world.recipes import text_prompts as prompts
from embedded_world.scenes import (
    ATTRIBUTES,
    COLOURS,
    MAX_THINGS,
    SHAPES,
    Scene,
    Thing,
    is_held_out,
    is_held_out_edit,
    random_scene,
)
from embedded_world.words import AT

EDIT, ADDED, COPY = "edit", "added", "copy"
_SLIPS = ("shape", "shape", "shape", "colour", "colour", "size", "fill", "gone", "place")
"""Mistakes of a careless captioner, with repetition as weights."""
UNPOINTED = ("add", "background")
"""Kinds of edit whose text points at no thing."""
_SEARCHES = 40
"""Edits tried on one scene before another scene is drawn."""
_SCENES = 20000
"""Scenes tried for one kind of edit before another kind is drawn."""


@dataclass(frozen=True)
class Mix:
    """The kind of samples to draw: shares are probabilities per sample.

    Attributes:
        tasks: Tasks to draw from, with repetition as weights.
        kinds: Kinds of edit to draw from, with repetition as weights.
        least: Fewest things in the scene before.
        most: Most things in the scene before and after.
        varied: Captions in other words than the canonical ones.
        shuffled: Varied captions whose things are also in another order.
        plain: Instructions in their plainest form (full reference, first template).
        open_scenes: Captions that leave sizes, fills and the background open (0.3 each).
        open_edits: Probability that size, and that fill, of a new thing is left open.
        two: Instructions made of two edits.
        mismatched: Captions that are wrong about the thing that the instruction is about.
    """

    tasks: tuple[str, ...] = (EDIT,)
    kinds: tuple[str, ...] = ONE_EDIT
    least: int = 1
    most: int = MAX_THINGS
    varied: float = 0.5
    shuffled: float = 0.4
    plain: float = 0.0
    open_scenes: float = 0.0
    open_edits: float = 0.0
    two: float = 0.0
    mismatched: float = 0.0


@dataclass(frozen=True)
class Split:
    """Which side of the split a sample must lie on; None = either.

    Attributes:
        scenes: Whether the scenes before and after must be held out (or must not be).
        edits: Whether each edit's combination must be held out (or must not be).
    """

    scenes: bool | None
    edits: bool | None

    def takes_scenes(self, scenes: Sequence[Scene]) -> bool:
        """Whether these contents lie on the wanted side."""
        return self.scenes is None or all(is_held_out(s) == self.scenes for s in scenes)

    def takes_edit(self, edit: Edit, scene: Scene) -> bool:
        """Whether this edit's combination lies on the wanted side."""
        # Background edits are one combination, trained by design (see `Edit.combination`).
        if self.edits is None or edit.kind == "background":
            return True
        return is_held_out_edit(edit.combination(scene)) == self.edits


TRAINING = Split(scenes=False, edits=False)
HELD_OUT = Split(scenes=True, edits=True)
HELD_OUT_SCENES = Split(scenes=True, edits=False)


@dataclass(frozen=True)
class Sample:
    """One prompt with its answer, and the scenes behind them.

    Attributes:
        task: EDIT, ADDED or COPY.
        prompt: The model's input.
        answer: The right output.
        scene: The full scene before.
        after: The full scene after.
        said: The content of the caption in the prompt.
        wanted: The content of the edited caption.
        edits: The edits, drawn on `scene`; empty for COPY.
        aims: The cell in `said` that each edit's text points at; None where it points at nothing.
        caption: The caption in the prompt.
        instruction: The instruction in the prompt, empty for COPY.
    """

    task: str
    prompt: str
    answer: str
    scene: Scene
    after: Scene
    said: Scene
    wanted: Scene
    edits: tuple[Edit, ...]
    aims: tuple[int | None, ...]
    caption: str
    instruction: str


# --------------------------------------------------------------------------- pointing


@dataclass(frozen=True)
class Pointer:
    """How an instruction points at its thing; None = not said."""

    cell: int | None
    colour: str | None
    shape: str | None

    def find(self, scene: Scene) -> int | None:
        """The cell of the thing that is meant, in a scene that may be misdescribed.

        A named place counts first, then colour and shape together; without a place, colour alone,
        then shape alone. Among equals the first in reading order.
        """
        if self.cell is not None and scene.cells[self.cell] is not None:
            return self.cell
        looks: list[tuple[str | None, str | None]] = []
        if self.colour and self.shape:
            looks.append((self.colour, self.shape))
        if self.cell is None:
            looks += [(self.colour, None)] if self.colour else []
            looks += [(None, self.shape)] if self.shape else []
        for colour, shape in looks:
            for cell in scene.occupied:
                thing = scene.thing(cell)
                if colour in (None, thing.colour) and shape in (None, thing.shape):
                    return cell
        return None

    def correct(self, thing: Thing) -> Thing:
        """The thing as the instruction describes it: the instruction is believed."""
        return replace(thing, colour=self.colour or thing.colour, shape=self.shape or thing.shape)


_PLACES = "|".join(sorted(AT, key=len, reverse=True))
_REFERENCE = re.compile(
    rf"(?:(?P<first>{_PLACES}) )?\w+(?: away)? "
    rf"the (?:(?P<colour>{'|'.join(COLOURS)}) )?(?P<shape>{'|'.join(SHAPES)}|object)"
    rf"(?: (?P<place>{_PLACES})(?![a-z]))?"
)


def read_pointer(instruction: str) -> Pointer:
    """Read how the text of one edit points at its thing.

    Raises:
        ValueError: The text does not begin with a verb and a reference.
    """
    match = _REFERENCE.match(instruction)
    if match is None:
        raise ValueError(f"no reference to a thing in {instruction!r}")
    place = match["first"] or match["place"]
    shape = None if match["shape"] == "object" else match["shape"]
    return Pointer(AT.index(place) if place else None, match["colour"], shape)


def aim_at(edit: Edit, cell: int, thing: Thing) -> Edit:
    """The same edit of the thing that stands in a cell; what it does not change stays."""
    if edit.kind in ATTRIBUTES and edit.thing is not None:
        thing = replace(thing, **{edit.kind: getattr(edit.thing, edit.kind)})
        return replace(edit, cell=cell, thing=thing)
    return replace(edit, cell=cell)


def carry_out(edits: Sequence[Edit], texts: Sequence[str], said: Scene) -> Scene | None:
    """The edited caption's content, as a reader who believes the instructions would write it.

    Equals the edits applied in turn wherever the caption is right. A reference that nothing fits
    changes nothing. All references are about the scene before.

    Args:
        edits: The edits as drawn.
        texts: The instruction of each.
        said: The content of the caption.

    Returns:
        The scene that the edited caption must describe, or None when the reader would take two
        edits to be about the same cell.
    """
    believed = said
    aimed: list[Edit] = []
    for edit, text in zip(edits, texts, strict=True):
        if edit.kind in UNPOINTED:
            aimed.append(edit)
            continue
        pointer = read_pointer(text)
        cell = pointer.find(said)
        if cell is None:
            continue
        thing = pointer.correct(said.thing(cell))
        believed = believed.put(cell, thing)
        if cell != edit.to_cell:  # a thing that stands there already need not move
            aimed.append(aim_at(edit, cell, thing))
    touched = [cell for edit in aimed for cell in edit.touched]
    if len(set(touched)) < len(touched):
        return None
    for edit in aimed:
        believed = edit.apply(believed)
    return believed


# --------------------------------------------------------------------------- drawing samples


def misdescribe(scene: Scene, edit: Edit, rng: Random) -> Scene:
    """The scene as a careless captioner tells it: wrong about the thing that the edit changes."""
    if edit.kind in UNPOINTED or edit.cell is None:
        return scene
    thing = scene.thing(edit.cell)
    slip = rng.choice(_SLIPS)
    if slip == "gone":
        return scene.put(edit.cell, None) if len(scene.occupied) > 1 else scene
    if slip == "place":
        return scene.put(edit.cell, None).put(rng.choice(scene.empty), thing)
    wrong = rng.choice([v for v in ATTRIBUTES[slip] if v != getattr(thing, slip)])
    return scene.put(edit.cell, replace(thing, **{slip: wrong}))


def _draw_edits(scene: Scene, rng: Random, mix: Mix, split: Split) -> tuple[Edit, ...] | None:
    """One edit, or two that touch different cells; None when the split refuses those found."""
    edits: list[Edit] = []
    now = scene
    for _ in range(2 if rng.random() < mix.two else 1):
        kind = rng.choice(mix.kinds)
        avoid = frozenset(cell for edit in edits for cell in edit.touched)
        if not _possible(kind, now, avoid, mix.most):
            return None
        edit = random_edit(now, rng, (kind,), open_share=mix.open_edits, most=mix.most, avoid=avoid)
        if not split.takes_edit(edit, now):
            return None
        edits.append(edit)
        now = edit.apply(now)
    return tuple(edits)


def _possible(kind: str, scene: Scene, avoid: frozenset[int | None], most: int) -> bool:
    """Whether a kind of edit has any outcome here: `random_edit` draws until it finds one."""
    if kind == "background":
        return None not in avoid
    if kind == "add":
        return len(scene.occupied) < most
    free = [cell for cell in scene.occupied if cell not in avoid]
    return bool(free) and not (kind == "remove" and len(scene.occupied) == 1)


def draw_situation(rng: Random, mix: Mix, split: Split) -> tuple[Scene, tuple[Edit, ...], Scene]:
    """A scene, its edits and the scene after them, all on the wanted side of the split.

    One kind is drawn per scene and kept until an edit of it fits, so that hard-to-fit kinds are
    not thinned out.
    """
    while True:
        chosen = replace(mix, kinds=(rng.choice(mix.kinds),)) if mix.two == 0 else mix
        for _ in range(_SCENES):
            scene = random_scene(rng, mix.least, mix.most)
            if not split.takes_scenes([scene]):
                continue
            for _ in range(_SEARCHES if split.scenes or split.edits else 1):
                edits = _draw_edits(scene, rng, chosen, split)
                if edits is None:
                    continue
                after = scene
                for edit in edits:
                    after = edit.apply(after)
                if split.takes_scenes([after]):
                    return scene, edits, after


def word_caption(scene: Scene, rng: Random, mix: Mix) -> str:
    """A caption of the scene: canonical, varied, or varied in another order."""
    if rng.random() >= mix.varied:
        return caption(scene)
    return varied_caption(scene, rng, shuffle=rng.random() < mix.shuffled)


def draw_sample(rng: Random, mix: Mix, split: Split = TRAINING) -> Sample:
    """Draw one sample; with `TRAINING` nothing in it is held out."""
    task = rng.choice(mix.tasks)
    while True:
        scene, edits, after = draw_situation(rng, mix, split)
        if task == COPY:
            edits, after = (), scene
        wording = None if rng.random() < mix.plain else rng
        texts = [modification_text(edit, scene, wording) for edit in edits]
        said = scene
        if edits and rng.random() < mix.mismatched:
            said = misdescribe(said, rng.choice(edits), rng)
        if rng.random() < mix.open_scenes:
            said = leave_open(said, rng, 0.3)
        wanted = carry_out(edits, texts, said)
        if wanted is None or not 1 <= len(wanted.occupied) <= MAX_THINGS:
            continue
        if split.scenes is False and not split.takes_scenes([said, wanted]):
            continue
        break
    aims = tuple(
        None if edit.kind in UNPOINTED else read_pointer(text).find(said)
        for edit, text in zip(edits, texts, strict=True)
    )
    told = word_caption(said, rng, mix)
    return compose(task, (scene, after), (said, wanted), edits, aims, told, join_texts(texts))


def compose(
    task: str,
    scenes: tuple[Scene, Scene],
    contents: tuple[Scene, Scene],
    edits: tuple[Edit, ...],
    aims: tuple[int | None, ...],
    told: str,
    instruction: str,
) -> Sample:
    """A sample from its parts.

    Args:
        task: EDIT, ADDED or COPY.
        scenes: The full scenes before and after.
        contents: Content of the caption in the prompt, and of the edited one.
        edits: As in `Sample`.
        aims: As in `Sample`.
        told: The caption in the prompt.
        instruction: The instruction; not used for COPY.
    """
    if task == COPY:
        prompt, answer = prompts.copy_prompt(told), caption(contents[1])
    elif task == ADDED:
        prompt, answer = prompts.added_prompt(told, instruction), join_added(edits)
    else:
        prompt, answer = prompts.edit_prompt(told, instruction), caption(contents[1])
    return Sample(task, prompt, answer, *scenes, *contents, edits, aims, told, instruction)
