"""Composed queries on drawn scenes, written in the on-disk layouts of CIRR, CIRCO and FashionIQ.

The files are read back by the same loaders that read the real benchmarks, so nothing downstream
knows that the pictures are drawn. Every scene is held out of training by content, and no gallery
holds a scene that fits a query by accident: content alone decides which answers are right.
"""

import json
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from embedded_world.drawing import draw
from embedded_world.edits import Edit, random_edit
from embedded_world.modification_texts import modification_text
from embedded_world.scenes import (
    FILLS,
    SHAPES,
    SIZES,
    THEMES,
    Scene,
    Thing,
    is_held_out,
    sample_scenes,
)

ASPECTS = {
    "add": "addition",
    "remove": "negation",
    "replace": "direct_addressing",
    "colour": "direct_addressing",
    "shape": "direct_addressing",
    "fill": "direct_addressing",
    "size": "comparative_statement",
    "move": "spatial_relations_background",
    "background": "spatial_relations_background",
}
"""CIRCO's semantic aspect that each kind of edit comes closest to."""


OPEN_QUERIES = 0.35
"""Share of CIRCO-like queries whose text leaves size or fill open, so that several scenes fit."""
_DRAWS = 10_000
"""Edits tried before a scene counts as one whose neighbours are all taken."""


@dataclass(frozen=True)
class WorldSize:
    """How many queries and distractors an embedded benchmark has.

    Attributes:
        subsets: CIRR-like groups of six hard negatives; each gives two queries.
        circo_queries: CIRCO-like queries, each with two or more targets.
        fashion_queries: FashionIQ-like queries per category.
        distractors: Unrelated pictures added to each CIRCO-like and FashionIQ-like gallery.
        siblings: Hard negatives of each CIRCO-like query: one edit away from the target (two in
            three) or from the reference.
        fashion_siblings: The same for FashionIQ-like queries, which are scored at rank 10.
    """

    subsets: int = 30
    circo_queries: int = 50
    fashion_queries: int = 14
    distractors: int = 60
    siblings: int = 9
    fashion_siblings: int = 14


@dataclass
class Gallery:
    """The pictures of one gallery: names in order, and their scenes."""

    prefix: str
    scenes: dict[str, Scene] = field(default_factory=dict)
    contents: set[Scene] = field(default_factory=set)

    def add(self, scene: Scene) -> str:
        """Add one picture of a scene; a second one of the same scene is another drawing."""
        name = f"{self.prefix}{len(self.scenes):06d}"
        self.scenes[name] = scene
        self.contents.add(scene)
        return name

    def showing(self, wanted: Scene) -> list[str]:
        """Names of all pictures whose content fits `wanted`."""
        return [name for name, scene in self.scenes.items() if wanted.matches(scene)]


class NoEditLeft(Exception):
    """The scenes one edit away from a scene are in the gallery already."""


def _new_edit(
    scene: Scene,
    rng: Random,
    taken: Set[Scene],
    *,
    shapes: Sequence[str] = SHAPES,
    held_out: bool = True,
) -> tuple[Edit, Scene]:
    """An edit whose result is a scene of one side of the split that is not among `taken`.

    Raises:
        NoEditLeft: hardly any edit, or none, has such a result.
    """
    for _ in range(_DRAWS):
        edit = random_edit(scene, rng, shapes=shapes)
        after = edit.apply(scene)
        if is_held_out(after) == held_out and after not in taken:
            return edit, after
    raise NoEditLeft


def _add_siblings(
    gallery: Gallery,
    rng: Random,
    count: int,
    before: Scene,
    after: Scene,
    *,
    wanted: Scene,
    shapes: Sequence[str] = SHAPES,
) -> None:
    """Add hard negatives: one edit away from the target, every third from the reference.

    A scene with few things may have fewer neighbours than are asked for.
    """
    for i in range(count):
        origin = before if i % 3 == 2 else after
        try:
            _, close = _new_edit(origin, rng, gallery.contents, shapes=shapes)
        except NoEditLeft:
            continue
        if not wanted.matches(close):
            gallery.add(close)


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))


def _write_pictures(folder: Path, gallery: Gallery, suffix: str, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{gallery.prefix}[0-9]*.{suffix}"):  # of a world drawn here before
        old.unlink()
    options: dict[str, Any] = {"quality": 98, "subsampling": 0} if suffix == "jpg" else {}
    for i, (name, scene) in enumerate(gallery.scenes.items()):
        draw(scene, seed * 1_000_003 + i).save(folder / f"{name}.{suffix}", **options)


# --------------------------------------------------------------------------- CIRR

_CIRR_FOLDERS = {"train": "train", "val": "dev", "test1": "test1"}
"""Split -> folder of its pictures."""


def write_cirr(root: Path, size: WorldSize, seed: int) -> None:
    """Write a CIRR-like benchmark (splits `val` and `test1`) below `root`.

    Each subset holds a scene, three edits of it and two edits of the first edit: six pictures
    that differ in one or two things. Queries go from the first to the second picture and from
    the second to the fifth.
    """
    for split, offset in (("val", 0), ("test1", 1)):
        gallery, records = cirr_split(split, size.subsets, seed)
        if split == "test1":
            for record in records:
                del record["target_hard"], record["target_soft"]
        write_cirr_split(root, split, gallery, records, 2 * seed + offset)


def cirr_split(split: str, subsets: int, seed: int) -> tuple[Gallery, list[dict[str, object]]]:
    """The gallery and the records of one CIRR-like split, drawn or not.

    The scenes of `train` are those of training; all others are held out of it.
    """
    rng = Random(f"cirr {split} {seed}")
    gallery = Gallery(f"{_CIRR_FOLDERS[split]}-")
    records: list[dict[str, object]] = []
    while len(records) < 2 * subsets:
        try:
            records += _cirr_subset(gallery, rng, len(records), held_out=split != "train")
        except NoEditLeft:
            continue
    return gallery, records


def write_cirr_split(
    root: Path,
    split: str,
    gallery: Gallery,
    records: Sequence[Mapping[str, object]],
    picture_seed: int,
) -> None:
    """Write the files and pictures of one CIRR-like split below `root`."""
    folder = _CIRR_FOLDERS[split]
    _write_json(root / "captions" / f"cap.rc2.{split}.json", records)
    files = {name: f"./{folder}/{name}.png" for name in gallery.scenes}
    _write_json(root / "image_splits" / f"split.rc2.{split}.json", files)
    _write_pictures(root / folder, gallery, "png", picture_seed)


def _cirr_subset(
    gallery: Gallery, rng: Random, first_id: int, held_out: bool
) -> list[dict[str, object]]:
    taken = gallery.contents
    start = sample_scenes(rng, 1, held_out=held_out)[0]
    while start in taken:
        start = sample_scenes(rng, 1, held_out=held_out)[0]
    scenes, edits = [start], {}
    for origin in (0, 0, 0, 1, 1):
        edit, after = _new_edit(scenes[origin], rng, taken | set(scenes), held_out=held_out)
        edits[len(scenes)] = (origin, edit)
        scenes.append(after)
    order = list(range(6))
    rng.shuffle(order)
    names = {i: gallery.add(scenes[i]) for i in order}
    members = [names[i] for i in order]
    records: list[dict[str, object]] = []
    for target in (1, 4):
        origin, edit = edits[target]
        records.append(
            {
                "pairid": first_id + len(records),
                "reference": names[origin],
                "target_hard": names[target],
                "target_soft": {names[target]: 1.0},
                "caption": modification_text(edit, scenes[origin], rng),
                "img_set": {
                    "id": first_id // 2,
                    "members": members,
                    "reference_rank": members.index(names[origin]),
                    "target_rank": members.index(names[target]),
                },
            }
        )
    return records


# --------------------------------------------------------------------------- CIRCO


def write_circo(root: Path, size: WorldSize, seed: int) -> None:
    """Write a CIRCO-like benchmark (splits `val` and `test` over one gallery) below `root`.

    A query's targets are all pictures that fit the edited scene: several drawings of one scene,
    and, where the text leaves size or fill open, every scene that fits.
    """
    gallery, queries = circo_queries(size, seed)
    parts = {"val": queries[: size.circo_queries], "test": queries[size.circo_queries :]}
    records = {
        split: [_circo_record(i, gallery, *query, split) for i, query in enumerate(part)]
        for split, part in parts.items()
    }
    write_circo_files(root, gallery, records, seed)


def write_circo_files(
    root: Path,
    gallery: Gallery,
    records: Mapping[str, Sequence[Mapping[str, object]]],
    picture_seed: int,
) -> None:
    """Write the files and pictures of CIRCO-like splits over one gallery below `root`."""
    for split, own in records.items():
        _write_json(root / "annotations" / f"{split}.json", own)
    images = [{"id": int(name), "file_name": f"{name}.jpg"} for name in gallery.scenes]
    info = root / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json"
    _write_json(info, {"images": images})
    _write_pictures(root / "COCO2017_unlabeled" / "unlabeled2017", gallery, "jpg", picture_seed)


CircoQuery = tuple[str, tuple[str, Edit], Scene]
"""Reference name, (modification text, edit), edited scene (None where the text leaves it open)."""


def circo_queries(size: WorldSize, seed: int) -> tuple[Gallery, list[CircoQuery]]:
    """The gallery and the queries of both CIRCO-like splits, `val` first; nothing is drawn."""
    rng = Random(f"circo {seed}")
    gallery = Gallery("")
    queries = [_circo_query(gallery, rng, size) for _ in range(2 * size.circo_queries)]
    wanted = [after for _, _, after in queries]
    extra = 0
    while extra < size.distractors:
        scene = sample_scenes(rng, 1, held_out=True)[0]
        if scene not in gallery.contents and not any(w.matches(scene) for w in wanted):
            gallery.add(scene)
            extra += 1
    return gallery, queries


def _circo_query(gallery: Gallery, rng: Random, size: WorldSize) -> CircoQuery:
    leaves_open = rng.random() < OPEN_QUERIES
    while True:
        before = sample_scenes(rng, 1, held_out=True)[0]
        edit = random_edit(before, rng, open_share=0.7 if leaves_open else 0.0)
        after = edit.apply(before)
        fitting = [scene for scene in completions(after) if is_held_out(scene)]
        if len(fitting) < 1 + leaves_open:
            continue
        if gallery.showing(after) or before in gallery.contents or after.matches(before):
            continue
        reference = gallery.add(before)
        drawings = 2 if len(fitting) > 1 else rng.randint(2, 4)
        for scene in fitting:
            for _ in range(drawings):
                gallery.add(scene)
        _add_siblings(gallery, rng, size.siblings, before, fitting[0], wanted=after)
        return reference, (modification_text(edit, before, rng), edit), after


def completions(scene: Scene) -> list[Scene]:
    """All fully said scenes that fit a scene with open sizes and fills."""
    scenes = [scene]
    for cell in scene.occupied:
        thing = scene.thing(cell)
        sizes = SIZES if thing.size is None else (thing.size,)
        fills = FILLS if thing.fill is None else (thing.fill,)
        things = [Thing(z, f, thing.colour, thing.shape) for z in sizes for f in fills]
        scenes = [s.put(cell, t) for s in scenes for t in things]
    return scenes


def _circo_record(
    index: int, gallery: Gallery, reference: str, said: tuple[str, Edit], after: Scene, split: str
) -> dict[str, object]:
    text, edit = said
    record: dict[str, object] = {
        "reference_img_id": int(reference),
        "relative_caption": text,
        "shared_concept": "drawn things",
        "id": index,
    }
    if split == "val":
        targets = [int(name) for name in gallery.showing(after)]
        record |= {
            "target_img_id": targets[0],
            "gt_img_ids": targets,
            "semantic_aspects": [ASPECTS[edit.kind]],
        }
    return record


# --------------------------------------------------------------------------- FashionIQ


def write_fashioniq(root: Path, size: WorldSize, seed: int) -> None:
    """Write a FashionIQ-like benchmark (split `val`) below `root`.

    Its categories are the themes of shapes. A query's target differs from its reference in two
    things, each said by one of the two captions.
    """
    for place, category in enumerate(THEMES):
        gallery, records = fashion_split("val", category, size, seed)
        write_fashion_split(root, "val", category, gallery, records, 3 * seed + place)


def fashion_split(
    split: str, category: str, size: WorldSize, seed: int
) -> tuple[Gallery, list[dict[str, object]]]:
    """The gallery and the records of one category; the scenes of `train` are those of training."""
    held_out, shapes = split != "train", THEMES[category]
    # The random stream of `val` has no split in its name: published worlds stay as they are.
    rng = Random(f"fashioniq {category} {'' if held_out else 'train '}{seed}")
    gallery = Gallery(f"{category[:1].upper()}{'' if held_out else 'T'}")
    records: list[dict[str, object]] = []
    while len(records) < size.fashion_queries:
        records.append(_fashion_query(gallery, rng, shapes, size, held_out))
    for scene in sample_scenes(rng, size.distractors, held_out=held_out, shapes=shapes):
        if not gallery.showing(scene):
            gallery.add(scene)
    return gallery, records


def write_fashion_split(
    root: Path,
    split: str,
    category: str,
    gallery: Gallery,
    records: Sequence[Mapping[str, object]],
    picture_seed: int,
) -> None:
    """Write the files and pictures of one category of a FashionIQ-like split below `root`."""
    _write_json(root / "captions" / f"cap.{category}.{split}.json", records)
    _write_json(root / "image_splits" / f"split.{category}.{split}.json", list(gallery.scenes))
    _write_pictures(root / "images", gallery, "png", picture_seed)


def _fashion_query(
    gallery: Gallery, rng: Random, shapes: Sequence[str], size: WorldSize, held_out: bool
) -> dict[str, object]:
    while True:
        before = sample_scenes(rng, 1, held_out=held_out, shapes=shapes)[0]
        first = random_edit(before, rng, shapes=shapes)
        second = random_edit(before, rng, shapes=shapes, avoid=frozenset(first.touched))
        after = second.apply(first.apply(before))
        if not 1 <= len(after.occupied) <= 3 or is_held_out(after) != held_out:
            continue
        if gallery.showing(after) or gallery.showing(before):
            continue
        names = gallery.add(before), gallery.add(after)
        _add_siblings(
            gallery, rng, size.fashion_siblings, before, after, wanted=after, shapes=shapes
        )
        captions = [modification_text(edit, before, rng) for edit in (first, second)]
        return {"candidate": names[0], "target": names[1], "captions": captions}


Write = Callable[[Path, WorldSize, int], None]
"""(folder, size, seed): writes one benchmark."""
WRITERS: Final[Mapping[str, Write]] = {
    "cirr": write_cirr,
    "circo": write_circo,
    "fashioniq": write_fashioniq,
}


Shown = Callable[[str], AbstractContextManager[object]]
"""Called with the name of a benchmark that is to be drawn; open while it is."""


def write_world(
    root: Path, size: WorldSize, seed: int, names: Sequence[str] = (), shown: Shown = nullcontext
) -> dict[str, Path]:
    """Write embedded benchmarks, all three or those named, below `root`; returns name -> folder.

    A folder whose `world.json` names the same size and seed is left as it is.
    """
    note = {"seed": seed, **vars(size)}
    return write_benchmarks(root, WRITERS, size, seed, names, note, shown)


def write_benchmarks(
    root: Path,
    writers: Mapping[str, Write],
    size: WorldSize,
    seed: int,
    names: Sequence[str],
    note: Mapping[str, object],
    shown: Shown = nullcontext,
) -> dict[str, Path]:
    """Write benchmarks, all or those named, unless a `world.json` there says the same as `note`."""
    made = {}
    for name, write in writers.items():
        if names and name not in names:
            continue
        folder = root / name
        marker = folder / "world.json"
        if not (marker.is_file() and json.loads(marker.read_text()) == note):
            marker.unlink(missing_ok=True)  # until all is drawn, no world is here
            with shown(name):
                write(folder, size, seed)
            _write_json(marker, note)
        made[name] = folder
    return made
