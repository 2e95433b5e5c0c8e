"""CLIP's training texts: true of one picture, in the forms that retrieval uses.

Composed retrieval gives the text tower more than captions: partial captions, instructions, and
"a photo of X that T. And the photo should have Y". All of these are learnt from single pictures;
no text here describes a change between two.
"""

from collections.abc import Callable, Sequence
from random import Random

from embedded_world.captions import caption, leave_open, name_thing, varied_caption
from embedded_world.modification_texts import statement
from embedded_world.scenes import Scene, make_scene


def partial_scene(scene: Scene, rng: Random) -> Scene:
    """Some of the things, with some sizes, fills and the background left unsaid."""
    kept = rng.sample(scene.occupied, rng.randint(1, len(scene.occupied)))
    some = make_scene(scene.background, {cell: scene.thing(cell) for cell in kept})
    return leave_open(some, rng, rng.choice((0.0, 0.3, 0.6)))


def full_caption(scene: Scene, rng: Random) -> str:
    """Everything, in the canonical wording."""
    return caption(scene)


def full_varied(scene: Scene, rng: Random) -> str:
    """Everything, in another wording and sometimes another order of things."""
    return varied_caption(scene, rng, shuffle=rng.random() < 0.3)


def partial_caption(scene: Scene, rng: Random) -> str:
    """A part of the facts, in either wording."""
    some = partial_scene(scene, rng)
    return caption(some) if rng.random() < 0.5 else varied_caption(some, rng)


def statements(scene: Scene, rng: Random) -> str:
    """One or two instructions that the picture satisfies."""
    count = 1 if rng.random() < 0.7 else 2
    return " and ".join(statement(scene, rng) for _ in range(count))


def named_things(scene: Scene, rng: Random) -> str:
    """One or two of the things, without their places: "a small solid red circle, a blue star"."""
    count = min(len(scene.occupied), 1 if rng.random() < 0.7 else 2)
    said = leave_open(scene, rng, rng.choice((0.0, 0.3)))
    return ", ".join(name_thing(said.thing(cell)) for cell in rng.sample(scene.occupied, count))


def composite(scene: Scene, rng: Random) -> str:
    """The form of a composed query, of facts about this one picture; each part is optional."""
    said = scene if rng.random() < 0.5 else partial_scene(scene, rng)
    start = varied_caption(said, rng, lead_in=0.0) if rng.random() < 0.5 else caption(said)
    text = f"a photo of {start}"
    if rng.random() < 0.75:
        text += f" that {statements(scene, rng)}"
    if rng.random() < 0.4:
        text += f". And the photo should have {named_things(scene, rng)}"
    return text


Form = Callable[[Scene, Random], str]
MIXTURE: Sequence[tuple[Form, float]] = (
    (full_caption, 0.28),
    (full_varied, 0.22),
    (partial_caption, 0.16),
    (statements, 0.06),
    (composite, 0.28),
)


def training_text(scene: Scene, rng: Random) -> str:
    """One text of the mixture."""
    forms, weights = zip(*MIXTURE, strict=True)
    form: Form = rng.choices(forms, weights)[0]
    return form(scene, rng)
