"""How right captions are: strict accuracies against the drawn scenes."""

from collections.abc import Sequence

from embedded_world.captions import parse_caption
from embedded_world.scenes import ATTRIBUTES, Scene

ASPECTS = ("position", *ATTRIBUTES, "background")


def attribute_accuracy(texts: Sequence[str], scenes: Sequence[Scene]) -> dict[str, float]:
    """Share of true facts that captions state rightly.

    The denominator is every thing (for the background: every scene) there is; a caption that cannot
    be read, and a thing that is not named in its cell, count as wrong in every aspect.

    Returns:
        Accuracy by aspect, and "whole": captions that say everything and nothing wrong.
    """
    right = dict.fromkeys((*ASPECTS, "whole"), 0)
    things = 0
    for text, scene in zip(texts, scenes, strict=True):
        things += len(scene.occupied)
        said = parse_caption(text)
        if said is None:
            continue
        right["background"] += said.background == scene.background
        right["whole"] += said == scene
        for cell in scene.occupied:
            thing = said.cells[cell]
            right["position"] += thing is not None
            for name in ATTRIBUTES:
                right[name] += getattr(thing, name, None) == getattr(scene.cells[cell], name)
    counted = {"background": len(scenes), "whole": len(scenes)}
    return {name: count / counted.get(name, things) for name, count in right.items()}


def is_free_of_error(text: str, scene: Scene) -> bool:
    """Whether a caption can be read and says nothing untrue; it may leave facts out."""
    said = parse_caption(text)
    if said is None or said.background not in (None, scene.background):
        return False
    return all(
        thing is None or (true is not None and thing.matches(true))
        for thing, true in zip(said.cells, scene.cells, strict=True)
    )
