"""A small filled root, random damages of its files, and the rerun that must not be misled by them.

    python -m tests.fakes.damaged_root [DAMAGES] [FIRST_SEED]

damages a copy of the root again and again, and prints the counts by kind of file.
"""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from storage.checks.root import check_root, repair_root
from storage.collections.collection import Collection, ingest
from storage.locations.location import Location
from storage.tables.turns import Turns

METHODS = ("image-only", "lincir", "cirevl", "cvsi")
ARCHIVE = Path(__file__).parents[1] / "data" / "earlier_root.tar.xz"

KINDS = {
    "part": r"(?!results|sources|images)[a-z_]+/\w+/part-\w+\.parquet",
    "part of images": r"images/\w+/part-\w+\.parquet",
    "part of sources": r"sources/\w+/part-\w+\.parquet",
    "part of results": r"results/\w+/part-\w+\.parquet",
    "spec": r"[a-z_]+/\w+/spec\.json",
    "receipt": r"[a-z_]+/\w+/complete-.+",
    "pointer": r"collections/[^/]+\.json",
    "copy of a pointer": r"collections/copies/.+",
    "place": r"collections/places/[^/]+\.json",
    "listing": r"collections/listings/[^/]+\.parquet",
    "receipt of an archive": r"collections/containers/.+",
    "network": r"checkpoints/.+/.+/.+",
    "state of a training": r"(checkpoints/[^/]+/[^/]+|training/.+)\.(pt|ckpt|json)",
    "record": r"manifest/.+",
    "mark": r"begun/.+",
    "staged": r"\.staging/.+",
    "put aside": r".+\.quarantined-\d+",
}


@dataclass(frozen=True)
class World:
    """A folder with the benchmark, an album to ingest, and the filled root."""

    folder: Path

    @property
    def root(self) -> Path:
        """The root that is copied and never damaged itself."""
        return self.folder / "tables"

    @cached_property
    def before(self) -> dict[str, Any]:
        """The results of the undamaged root."""
        return rerun(self, self.root)


def make_world(folder: Path) -> World:
    """Fill a root of an earlier version by this one: both kinds of files lie in it."""
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(folder, filter="data")
    world = World(folder)
    pictures = sorted((folder / "world" / "cirr" / "test1").glob("*.png"))
    album = folder / "album"
    album.mkdir()
    with tarfile.open(album / "some.tar", "w") as archive:
        for picture in pictures[:4]:
            archive.add(picture, picture.name)
    with tarfile.open(album / "others.tar", "w") as archive:
        for picture in pictures[4:6]:
            archive.add(picture, picture.name)
    loose = folder / "loose"
    loose.mkdir()
    for picture in pictures[6:9]:
        shutil.copy(picture, loose)
    rerun(world, world.root)
    location = Location(str(world.root))
    (world.root / ".staging").mkdir(exist_ok=True)
    (world.root / ".staging" / "0123").write_bytes(b"half a part")
    location.create("begun/captions/0123456789abcdef0123/0123456789abcdef0123", b"")
    location.create("captions/0123456789abcdef0123/part-0123456789.parquet.quarantined-1", b"PAR1")
    location.replace("checkpoints/rewriter/89abcdef.state.pt", torch_file(b"state"))
    location.replace("training/reformulation/89abcdef/state.ckpt", torch_file(b"other"))
    location.replace("training/reformulation/89abcdef/history.json", b'{"points": []}\n')
    return world


def torch_file(content: bytes) -> bytes:
    """A zip archive as torch.save writes it."""
    import torch

    out = io.BytesIO()
    torch.save({"content": torch.tensor(list(content), dtype=torch.uint8)}, out)
    return out.getvalue()


def rerun(world: World, root: Path) -> dict[str, Any]:
    """Do everything that a person would do again, and return the results that they see."""
    from flows.profiles import resolve_profile
    from tasks.planner import plan_evaluation
    from tasks.published_files import require_as_published
    from tasks.query_sets import BenchmarkRef, image_folder
    from tasks.scoring.ledger import read_ledger
    from tasks.scoring.scores import record_scores, score_ranking
    from tasks.stages.stage import in_order

    location = Location(str(root))
    profile = resolve_profile("tiny", {"root": str(root)})
    ref = BenchmarkRef(name="cirr", root=str(world.folder / "world" / "cirr"), split="val")
    ingest(location, image_folder(ref.load()), ref.collection_name)
    ingest(location, world.folder / "loose", "album", if_taken="add")
    ingest(location, world.folder / "album", "album", if_taken="add")
    plan = plan_evaluation(profile, ref, METHODS)
    for stage in in_order(plan.rankings):
        table = stage.table()
        turns = Turns(table, table.plan(stage.planned_keys(), stage.shard_size))
        for shard in turns:
            table.publish(shard, stage.rows(shard.members, lambda count: None))
            turns.end(shard.key)
    record_scores([(stage, score_ranking(stage)) for stage in plan.rankings])
    own = {stage.spec_key for stage in plan.rankings}
    train(location)
    require_as_published(location.join(NETWORK), root / NETWORK)
    return {
        "rankings": {s.spec_key: s.table().read(["names"]).rows() for s in plan.rankings},
        "texts": [s.table().read().rows() for s in in_order(plan.rankings) if _of_texts(s)],
        # Of what is evaluated again: an earlier version's runs are lost with their rows.
        "ledger": {
            e["run"]: _plain(e["metrics"]) for e in read_ledger(str(root)) if e["run"] in own
        },
        "collections": {name: _seen(location, name) for name in ("cirr-val", "album")},
        "network": [location.read_bytes(f"{NETWORK}/{name}") for name in WEIGHTS],
    }


def _of_texts(stage: Any) -> bool:
    return stage.table_name in ("captions", "rewrites")


def _plain(metrics: Any) -> dict[str, float]:
    return {name: cell["value"] for name, cell in metrics.items()}


def _seen(location: Location, name: str) -> Any:
    collection = Collection.open(location, name)
    rows = collection.rows().select("path", "image_id", "status", "meta_class").rows()
    return rows, sorted(collection.read_images(collection.image_ids()))


NETWORK = "checkpoints/mapping/0123456789abcdef0123"
FILES = {
    "config.json": b'{"format": "a network"}\n',
    "model.safetensors": b"\x3a\0\0\0\0\0\0\0"
    + b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}    '
    + b"\0\0\x80\x3f\0\0\0\x40",
    "README.md": b"# A network\n",
}


WEIGHTS = ("config.json", "model.safetensors")


def train(location: Location) -> None:
    """Publish a network as trainings do; a published one is left alone."""
    from storage.locations import manifest

    if location.exists(f"{NETWORK}/config.json"):
        return
    for name in sorted(FILES, key=lambda name: name == "config.json"):
        manifest.publish(location, f"{NETWORK}/{name}", FILES[name])


# ------------------------------------------------------------------------------------- damages


def flip(file: Path, other: Path, rng: random.Random) -> None:
    """Change one bit."""
    data = bytearray(file.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def truncate(file: Path, other: Path, rng: random.Random) -> None:
    """Cut off the end."""
    data = file.read_bytes()
    file.write_bytes(data[: rng.randrange(max(1, len(data)))])


def zero(file: Path, other: Path, rng: random.Random) -> None:
    """Fill a stretch with zeros, as a disk that lost a page."""
    data = bytearray(file.read_bytes())
    if data:
        start = rng.randrange(len(data))
        end = min(len(data), start + rng.randint(1, 4096))
        data[start:end] = bytes(end - start)
    file.write_bytes(data)


def delete(file: Path, other: Path, rng: random.Random) -> None:
    """Remove the file."""
    file.unlink()


def swap(file: Path, other: Path, rng: random.Random) -> None:
    """Exchange the contents of two files of a kind."""
    own, others = file.read_bytes(), other.read_bytes()
    file.write_bytes(others)
    other.write_bytes(own)


def overwrite(file: Path, other: Path, rng: random.Random) -> None:
    """Write other bytes."""
    file.write_bytes(rng.randbytes(rng.choice([1, 300, max(1, file.stat().st_size)])))


DAMAGES: tuple[Callable[[Path, Path, random.Random], None], ...] = (
    flip,
    truncate,
    zero,
    delete,
    swap,
    overwrite,
)


@dataclass(frozen=True)
class Outcome:
    """What became of one damage.

    Attributes:
        end: "found and mended", "found, harmless" (not mended), "harmless", "no change", or what
            went wrong.
        untouched: what a rerun without repair did: "equal" results, a "typed" error, or the
            damage that it did.
    """

    seed: int
    kind: str
    damage: str
    file: str
    end: str
    untouched: str

    @property
    def good(self) -> bool:
        """Whether nothing false was believed and everything came back."""
        ends = ("found and mended", "found, harmless", "harmless", "no change")
        return self.end in ends and self.untouched in ("equal", "typed", "")


def damage_once(world: World, seed: int) -> Outcome:
    """Damage a copy of the root, rerun as it is, then check, repair and rerun."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=world.folder) as folder:
        root = Path(folder, "tables")
        shutil.copytree(world.root, root)
        files = {
            kind: [path for path in paths(root) if re.fullmatch(pattern, path)]
            for kind, pattern in KINDS.items()
        }
        kind = list(KINDS)[seed % len(KINDS)]
        harm = DAMAGES[seed // len(KINDS) % len(DAMAGES)]
        path, other = rng.choice(files[kind]), rng.choice(files[kind])
        snapshot = (root / path).read_bytes(), (root / other).read_bytes()
        harm(root / path, root / other, rng)
        told = seed, kind, harm.__name__, path
        if (root / path).exists() and snapshot == (
            (root / path).read_bytes(),
            (root / other).read_bytes(),
        ):
            return Outcome(*told, "no change", "")
        found = check_root(Location(str(root))).faults
        untouched = Path(folder, "untouched")
        shutil.copytree(root, untouched)
        without = _without_repair(world, untouched)
        try:
            return Outcome(*told, _mended(world, root, bool(found)), without)
        except Exception as error:  # the program reports every kind
            return Outcome(*told, f"{type(error).__name__}: {error}", without)


def _without_repair(world: World, root: Path) -> str:
    """Readers name the damage or are not misled by it."""
    try:
        return "equal" if rerun(world, root) == world.before else "FALSE RESULTS"
    except Exception as error:  # the program reports every kind
        named = type(error).__name__ in ("CorruptPart", "DamagedFile", "SpecConflict")
        return "typed" if named and "repair" in str(error) else f"{type(error).__name__}: {error}"


def _mended(world: World, root: Path, found: bool) -> str:
    location = Location(str(root))
    if found:
        repair_root(location)
    after = rerun(world, root)
    for name, value in world.before.items():
        if after[name] != value:
            return f"{name} differ after the {'repair' if found else 'damage'}"
    left = check_root(location).faults
    if found and all(re.fullmatch(KINDS["spec"], fault.path) for fault in left) and left:
        return "found, harmless"  # an earlier version's table that no run reads or writes any more
    if left:
        return f"left: {left[0].path}: {left[0].what}"
    return "found and mended" if found else "harmless"


def paths(root: Path) -> list[str]:
    """All files of a root, sorted."""
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())


@dataclass
class Tally:
    """Outcomes by kind of file."""

    rows: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        row = self.rows.setdefault(outcome.kind, Counter())
        row["damages"] += 1
        row[outcome.end if outcome.good else "BAD"] += 1
        if outcome.untouched:
            row[f"not repaired: {outcome.untouched if outcome.good else 'BAD'}"] += 1

    def as_text(self) -> str:
        """A line for each kind, and their sum."""
        rows = {**self.rows, "all": sum(self.rows.values(), Counter())}
        return "\n".join(
            f"{kind:24}{json.dumps(row, sort_keys=True)}" for kind, row in rows.items()
        )


def main(count: int = 500, first: int = 0) -> int:
    """Damage the root many times; returns how many damages were not handled."""
    tally, bad = Tally(), 0
    with tempfile.TemporaryDirectory(prefix="damaged-root-") as folder:
        world = make_world(Path(folder))
        for seed in range(first, first + count):
            outcome = damage_once(world, seed)
            tally.add(outcome)
            bad += not outcome.good
            if not outcome.good:
                print(outcome, flush=True)
    print(tally.as_text())
    return bad


if __name__ == "__main__":
    sys.exit(min(1, main(*map(int, sys.argv[1:3]))))
