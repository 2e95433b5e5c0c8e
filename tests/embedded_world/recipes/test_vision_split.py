"""Training and evaluation scenes are disjoint by content, in every stage."""

from collections.abc import Sequence
from itertools import product
from random import Random

import pytest

from embedded_world.captions import caption, parse_caption
from embedded_world.recipes.clip_texts import MIXTURE, partial_scene, training_text
from embedded_world.scenes import (
    BACKGROUNDS,
    COLOURS,
    FILLS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    content,
    is_held_out,
    make_scene,
    random_scene,
    sample_scenes,
)

STAGES = ("warm-up", "clip families", "captioner and mapping")


def training_scenes(stage: str, rng: Random) -> Sequence[Scene]:
    """About a thousand scenes that a stage of the training draws."""
    from embedded_world.recipes import clip, vision_tower

    if stage == "warm-up":
        return vision_tower.training_scenes(rng, 1000)
    if stage == "clip families":
        return clip.families(rng, 300, 2)
    return sample_scenes(rng, 1000, held_out=False)


@pytest.fixture(scope="module")
def held_out_singles() -> set[str]:
    """Contents of all held-out scenes of one thing; random draws would meet these few."""
    attributes = product(SIZES, FILLS, COLOURS, SHAPES)
    things = [Thing(*values) for values in attributes]
    scenes = (
        make_scene(background, {cell: thing})
        for background, cell, thing in product(BACKGROUNDS, range(9), things)
    )
    return {content(scene) for scene in scenes if is_held_out(scene)}


@pytest.mark.parametrize("stage", STAGES)
def test_training_never_meets_an_evaluation_scene(stage: str, held_out_singles: set[str]) -> None:
    trained = {content(scene) for scene in training_scenes(stage, Random(5))}
    evaluated = {content(scene) for scene in sample_scenes(Random(6), 300, held_out=True)}
    assert not trained & (evaluated | held_out_singles)


def test_unsplit_draws_would_meet_held_out_scenes(held_out_singles: set[str]) -> None:
    rng = Random(5)
    drawn = {content(random_scene(rng)) for _ in range(1000)}
    assert len(drawn & held_out_singles) > 5, "the test above would notice a leak"


def test_families_are_one_edit_apart() -> None:
    from embedded_world.recipes import clip

    scenes = clip.families(Random(1), 50, 2)
    for start in range(0, len(scenes), 3):
        scene, *siblings = scenes[start : start + 3]
        for other in siblings:
            pairs = zip(scene.cells, other.cells, strict=True)
            differences = sum(a != b for a, b in pairs) + (scene.background != other.background)
            assert 1 <= differences <= 2  # a move empties one cell and fills another


def test_partial_scenes_say_only_what_is_there() -> None:
    rng = Random(2)
    for scene in sample_scenes(rng, 200, held_out=False):
        said = parse_caption(caption(partial_scene(scene, rng)))
        assert said is not None
        assert said.occupied
        assert said.background in (None, scene.background)
        assert all(said.thing(cell).matches(scene.thing(cell)) for cell in said.occupied)


def test_texts_of_training_describe_no_change_between_pictures() -> None:
    assert sum(weight for _, weight in MIXTURE) == pytest.approx(1)
    rng = Random(3)
    scenes = sample_scenes(rng, 300, held_out=False)
    texts = [training_text(scene, rng) for scene in scenes]
    composites = [text for text in texts if text.startswith("a photo of ")]
    assert 0.15 < len(composites) / len(texts) < 0.45
    assert any(" that " in text and ". And the photo should have " in text for text in composites)


def test_probe_targets_are_held_out_and_families_distinct() -> None:
    from embedded_world.recipes import clip, composed_probe

    probe = composed_probe.make_probe(20)
    for query in range(20):
        family = probe.gallery[query * 5 : query * 5 + 5]
        assert len(set(family)) == 5
        assert probe.edits[query].apply(probe.reference(query)) == probe.target(query)
    trained = {content(s) for s in clip.families(Random(5), 300, 2)}
    assert not trained & {content(scene) for scene in probe.gallery}
