"""Harder drawn benchmarks: two steps at once, what has one of them, and what lacks one attribute.

The usual world's queries ask for one change, so that rank 10 of its galleries is easily reached
by the image or the text alone. Here every query asks for two changes of the reference; the gallery
holds the pictures with only one of the two, pictures that share all but one attribute with the
target, and some thousands of others. Files and rules are those of `benchmarks`: every scene is held
out of training, and content alone decides which answers are right.

A query's text either says the two changes plainly, or it points: at a thing by another one, or at
two things that change alike ("paint both stars green").
"""

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, islice, product
from pathlib import Path
from random import Random
from typing import Final

from embedded_world.benchmarks import (
    ASPECTS,
    Gallery,
    Shown,
    WorldSize,
    write_benchmarks,
    write_circo_files,
    write_cirr_split,
    write_fashion_split,
)
from embedded_world.edits import Edit, random_edit
from embedded_world.modification_texts import join_texts, modification_text
from embedded_world.pointing import by_relations, group_edits, group_text
from embedded_world.scenes import (
    COLOURS,
    FILLS,
    MAX_THINGS,
    SHAPES,
    SIZES,
    THEMES,
    Scene,
    Thing,
    is_held_out,
    sample_scenes,
)

HARDER: Final = WorldSize(
    subsets=850,
    circo_queries=260,
    fashion_queries=250,
    distractors=1000,
    siblings=10,
    fashion_siblings=14,
)
"""Galleries of more than 5,000 pictures: CIRR-like, CIRCO-like and in each FashionIQ-like one."""
_CANDIDATES = 250
"""Edits of a scene that are drawn; one result in twenty is held out of training."""


@dataclass(frozen=True)
class TwoSteps:
    """Two edits of one scene that touch different places, so that their order does not matter.

    Attributes:
        before: The scene before both.
        edits: The two.
        halves: The scenes after one of them.
        after: The scene after both.
    """

    before: Scene
    edits: tuple[Edit, Edit]
    halves: tuple[Scene, Scene]
    after: Scene

    def texts(self, rng: Random) -> tuple[str, str]:
        """What either edit says of the scene before."""
        first, second = self.edits
        return modification_text(first, self.before, rng), modification_text(
            second, self.before, rng
        )

    def backwards(self) -> "TwoSteps":
        """From the scene after both to the scene before."""
        first, second = (inverse(edit, self.before) for edit in self.edits)
        return TwoSteps(self.after, (first, second), self.halves[::-1], self.before)


def inverse(edit: Edit, before: Scene) -> Edit:
    """The edit that leads back to the scene before an edit."""
    if edit.kind == "background":
        return Edit("background", background=before.background)
    assert edit.cell is not None
    if edit.kind == "add":
        return Edit("remove", edit.cell)
    if edit.kind == "move":
        return Edit("move", edit.to_cell, to_cell=edit.cell)
    kind = "add" if edit.kind == "remove" else edit.kind
    return Edit(kind, edit.cell, before.thing(edit.cell))


def two_steps(rng: Random, taken: Set[Scene], shapes: Sequence[str] = SHAPES) -> TwoSteps:
    """Draw a scene and two edits of it; all four scenes are held out, and none is taken."""

    def free(scene: Scene) -> bool:
        return 1 <= len(scene.occupied) <= MAX_THINGS and is_held_out(scene) and scene not in taken

    while True:
        before = sample_scenes(rng, 1, held_out=True, shapes=shapes)[0]
        if before in taken:
            continue
        drawn = [random_edit(before, rng, shapes=shapes) for _ in range(_CANDIDATES)]
        singles = {after: edit for edit in drawn if free(after := edit.apply(before))}
        pairs = list(combinations(singles.items(), 2))
        rng.shuffle(pairs)
        for (one, first), (other, second) in pairs:
            after = second.apply(one)
            if not first.touched & second.touched and after != before and free(after):
                return TwoSteps(before, (first, second), (one, other), after)


def related_steps(rng: Random, taken: Set[Scene], shapes: Sequence[str] = SHAPES) -> TwoSteps:
    """As `two_steps`, with at least one edit that can be said by a relation."""
    while True:
        way = two_steps(rng, taken, shapes)
        if by_relations(way.edits, way.before, rng):
            return way


def pointed_steps(rng: Random, taken: Set[Scene], shapes: Sequence[str] = SHAPES) -> TwoSteps:
    """As `related_steps`; one way in three changes two things alike instead."""

    def free(scene: Scene) -> bool:
        return is_held_out(scene) and scene not in taken

    if rng.random() >= 1 / 3:
        return related_steps(rng, taken, shapes)
    while True:
        before = sample_scenes(rng, 1, held_out=True, least=2, shapes=shapes)[0]
        if before in taken:
            continue
        # Hardly a scene has such a change that is held out whole: the first is as good as any.
        for _, first, second in group_edits(before, shapes):
            if not free(one := first.apply(before)) or not free(after := second.apply(one)):
                continue
            if free(other := second.apply(before)):
                return TwoSteps(before, (first, second), (one, other), after)


def pointed_texts(way: TwoSteps, rng: Random) -> Sequence[str] | None:
    """One text about two things that change alike; else one for each edit, by relations.

    None where neither can be said.
    """
    edits = {*way.edits}
    names = [name for name, *pair in group_edits(way.before) if edits == {*pair}]
    if names:
        return (group_text(rng.choice(names), way.edits[0], rng),)
    return by_relations(way.edits, way.before, rng)


@dataclass(frozen=True)
class Asking:
    """How ways are drawn, and how they are said; what cannot be said is not asked."""

    draw: Callable[[Random, Set[Scene], Sequence[str]], TwoSteps]
    tell: Callable[[TwoSteps, Random], Sequence[str] | None]

    def told(self, way: TwoSteps, rng: Random) -> Sequence[str]:
        """The texts of a way that was drawn to be said."""
        texts = self.tell(way, rng)
        assert texts is not None
        return texts


PLAINLY: Final = Asking(two_steps, TwoSteps.texts)
POINTING: Final = Asking(pointed_steps, pointed_texts)
BY_RELATIONS: Final = Asking(
    related_steps, lambda way, rng: by_relations(way.edits, way.before, rng)
)


def lookalikes(scene: Scene, shapes: Sequence[str] = SHAPES) -> list[Scene]:
    """All scenes that share all but one attribute of one thing with a scene."""
    values = {"colour": COLOURS, "shape": shapes, "size": SIZES, "fill": FILLS}
    return [
        scene.put(cell, replace(thing, **{name: value}))
        for cell in scene.occupied
        for thing in [scene.thing(cell)]
        for name, others in values.items()
        for value in others
        if value != getattr(thing, name)
    ]


def _near(scene: Scene, rng: Random, shapes: Sequence[str]) -> Iterator[Scene]:
    """Lookalikes of a scene, then scenes with another thing in one place; each group shuffled."""
    close = lookalikes(scene, shapes)
    yield from rng.sample(close, len(close))
    things = [Thing(*looks) for looks in product(SIZES, FILLS, COLOURS, shapes)]
    cells = scene.occupied if len(scene.occupied) == MAX_THINGS else range(len(scene.cells))
    places = [(cell, thing) for cell in cells for thing in things]
    for cell, thing in rng.sample(places, len(places)):
        yield scene.put(cell, thing)


def _add_near(
    gallery: Gallery, rng: Random, count: int, scene: Scene, shapes: Sequence[str] = SHAPES
) -> list[str]:
    """Add scenes near another, as far as there are any; returns their names."""
    free = (
        each
        for each in _near(scene, rng, shapes)
        if each not in gallery.contents and is_held_out(each)
    )
    return [gallery.add(each) for each in islice(free, count)]


# --------------------------------------------------------------------------- CIRR


def write_harder_cirr(root: Path, size: WorldSize, seed: int, asking: Asking = PLAINLY) -> None:
    """Write a CIRR-like benchmark (split `val`) below `root`.

    A subset holds a scene, both halves of the way, its end and two pictures near the end. Its
    queries lead from the scene to the end and, where that can be said, back.
    """
    rng, gallery = Random(f"harder cirr {seed}"), Gallery("dev-")
    records: list[dict[str, object]] = []
    subset = 0
    while len(records) < 2 * size.subsets:
        way = asking.draw(rng, gallery.contents, SHAPES)
        scenes = [way.before, *way.halves, way.after]
        names = [gallery.add(scene) for scene in scenes]
        names += _add_near(gallery, rng, 2, way.after)
        members = list(names)
        rng.shuffle(members)
        for reference, target, own in ((0, 3, way), (3, 0, way.backwards())):
            texts = asking.tell(own, rng)
            if texts is None or len(records) == 2 * size.subsets:
                continue
            records.append(
                {
                    "pairid": len(records),
                    "reference": names[reference],
                    "target_hard": names[target],
                    "target_soft": {names[target]: 1.0},
                    "caption": join_texts(texts),
                    "img_set": {
                        "id": subset,
                        "members": members,
                        "reference_rank": members.index(names[reference]),
                        "target_rank": members.index(names[target]),
                    },
                }
            )
        subset += 1
    write_cirr_split(root, "val", gallery, records, 2 * seed)


# --------------------------------------------------------------------------- CIRCO


def write_harder_circo(root: Path, size: WorldSize, seed: int, asking: Asking = PLAINLY) -> None:
    """Write a CIRCO-like benchmark (split `val`) below `root`.

    The targets of a query are several drawings of one scene.
    """
    rng, gallery = Random(f"harder circo {seed}"), Gallery("")
    records: list[dict[str, object]] = []
    for index in range(size.circo_queries):
        way = asking.draw(rng, gallery.contents, SHAPES)
        reference = gallery.add(way.before)
        targets = [gallery.add(way.after) for _ in range(rng.randint(2, 4))]
        for half in way.halves:
            gallery.add(half)
        _add_near(gallery, rng, size.siblings, way.after)
        records.append(
            {
                "id": index,
                "reference_img_id": int(reference),
                "relative_caption": join_texts(asking.told(way, rng)),
                "shared_concept": "drawn things",
                "target_img_id": int(targets[0]),
                "gt_img_ids": [int(name) for name in targets],
                "semantic_aspects": sorted({ASPECTS[edit.kind] for edit in way.edits}),
            }
        )
    _fill(gallery, rng, size.distractors)
    write_circo_files(root, gallery, {"val": records}, seed)


# --------------------------------------------------------------------------- FashionIQ


def write_harder_fashioniq(
    root: Path, size: WorldSize, seed: int, asking: Asking = PLAINLY
) -> None:
    """Write a FashionIQ-like benchmark (split `val`) below `root`; each caption says one edit."""
    for place, category in enumerate(THEMES):
        shapes = THEMES[category]
        rng, gallery = Random(f"harder fashioniq {category} {seed}"), Gallery(category[:1].upper())
        records: list[dict[str, object]] = []
        for _ in range(size.fashion_queries):
            way = asking.draw(rng, gallery.contents, shapes)
            names = [gallery.add(scene) for scene in (way.before, way.after, *way.halves)]
            _add_near(gallery, rng, size.fashion_siblings, way.after, shapes)
            captions = [*asking.told(way, rng)]
            records.append({"candidate": names[0], "target": names[1], "captions": captions})
        _fill(gallery, rng, size.distractors, shapes)
        write_fashion_split(root, "val", category, gallery, records, 3 * seed + place)


def _fill(gallery: Gallery, rng: Random, count: int, shapes: Sequence[str] = SHAPES) -> None:
    """Add scenes that are in no query's neighbourhood on purpose."""
    wanted = len(gallery.scenes) + count
    while len(gallery.scenes) < wanted:
        scene = sample_scenes(rng, 1, held_out=True, shapes=shapes)[0]
        if scene not in gallery.contents:
            gallery.add(scene)


WRITERS: Final = {
    "cirr": write_harder_cirr,
    "circo": write_harder_circo,
    "fashioniq": write_harder_fashioniq,
}


def write_harder_world(
    root: Path, size: WorldSize, seed: int, names: Sequence[str] = (), shown: Shown = nullcontext
) -> dict[str, Path]:
    """Write all three, or those named, below `root`; returns name -> folder, as `write_world`."""
    note = {"world": "harder", "seed": seed, **vars(size)}
    return write_benchmarks(root, WRITERS, size, seed, names, note, shown)


def write_pointing_world(
    root: Path, size: WorldSize, seed: int, names: Sequence[str] = (), shown: Shown = nullcontext
) -> dict[str, Path]:
    """As `write_harder_world`, with texts that point.

    Those of the FashionIQ-like benchmark do so by relations alone: a change of two things alike is
    one text, and a query there has two.
    """
    asked = {"fashioniq": BY_RELATIONS}
    writers = {
        name: partial(write, asking=asked.get(name, POINTING)) for name, write in WRITERS.items()
    }
    note = {"world": "pointing", "seed": seed, **vars(size)}
    return write_benchmarks(root, writers, size, seed, names, note, shown)
