"""A whole root of many images: ingest, plans, reruns, vectors and search, with peak memory.

The root is made by the project's own code (`bench.million_root`). Every figure is of a fresh
process: processor seconds of the work alone (of commands: with their imports and models), and the
highest resident size, libraries and mapped pages included. The bare forms hash and decode the
pictures, read every part into sets and arrays, and multiply a mapped array.

    python -m bench.million [--images 20000] [--root FOLDER]

At 1,000,000 images it takes about 15 minutes of CPU and 15 GB of disk. With --root the folder is
kept, and what is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from bench.command_line import command_line, whole_number
from bench.million_root import (
    DIM,
    FEATURES,
    METHOD,
    NAME,
    Figures,
    Place,
    caption_stage,
    make_captions,
    make_features,
    make_gallery,
    make_source,
    take_in,
    take_in_more,
    take_in_naive,
)
from bench.tables import naive_plan, naive_vectors
from bench.verdict import Verdict, exit_status, is_steady, judge, report
from storage.tables.keys import sha256_hex
from storage.tables.plans import DerivedKeys
from storage.tables.table import Table
from tasks.stages.image_sets import ids_of_collection

IMAGES: Final = 20_000
"""Of `make bench`."""
SCATTERED: Final = 1000
BEST: Final = 50
RERUN_SECONDS: Final = 5.0
READ_RATIO: Final = 1.5
LEAST: Final = 5
MOST: Final = 11
"""Turns of what can be repeated."""
MANY: Final = 100_000
"""Images from which scattered vectors are judged; of fewer, most of the time is first calls."""

# --------------------------------------------------------------------------- reading it


def plan_complete(place: Place) -> Figures:
    """Plan the captions, of which none is missing."""
    stage = caption_stage(place)
    return timed(
        lambda: stage.table().plan(stage.planned_keys(), stage.shard_size, order=stage.read_order),
        lambda plan: [shard.key for shard in plan.shards],
    )


def plan_complete_naive(place: Place) -> Figures:
    """The same, with every part and every key read."""
    stage = caption_stage(place)
    return timed(
        lambda: naive_plan(stage.table(), stage.planned(), stage.shard_size),
        lambda shards: [shard.key for shard in shards],
    )


def plan_lacking(place: Place) -> Figures:
    """Plan the features, of which a thousand are missing."""
    keys = DerivedKeys("bench", lambda: place.ids)  # type: ignore[arg-type,return-value]
    return timed(
        lambda: place.features.plan(keys, FEATURES),
        lambda plan: [shard.key for shard in plan.shards],
    )


def plan_lacking_naive(place: Place) -> Figures:
    """The same, with every part and every key read."""
    return timed(
        lambda: naive_plan(place.features, place.ids.to_list(), FEATURES),
        lambda shards: [shard.key for shard in shards],
    )


def asked(place: Place, count: int) -> pl.Series:
    """Some ids that have features, in random order."""
    return place.ids.head(place.images - place.lacking).sample(count, shuffle=True, seed=3)


def vectors(place: Place, count: int) -> Figures:
    """Read the vectors of some images."""
    keys = asked(place, count)
    return timed(lambda: place.features.vectors(keys), checksum)  # type: ignore[arg-type]


def vectors_naive(place: Place, count: int) -> Figures:
    """The same, with every part read and its keys looked up one by one."""
    keys = asked(place, count)
    return timed(lambda: naive_vectors(place.features, keys.to_list()), checksum)


def checksum(found: np.ndarray) -> float:
    """A number that depends on the values and their order."""
    return float((found.sum(1, dtype=np.float64) * np.arange(1, 1 + len(found))).sum())


@dataclass(frozen=True)
class OpenedFeatures:
    """What the gallery of a search asks of a stage."""

    place: Place

    def existing_table(self) -> Table:
        """The features."""
        return self.place.features

    def planned_keys(self) -> DerivedKeys:
        """The images."""
        return ids_of_collection(self.place.root.root, NAME)


def search(place: Place) -> Figures:
    """Open the gallery of the features, and the best of two queries, as a search finds them."""
    import torch

    from models.retrieval.apart import own_products, top_k_apart
    from models.retrieval.methods import METHODS
    from tasks.galleries import open_gallery
    from tasks.settings import SearchSettings

    torch.set_num_threads(1)
    recipe = METHODS[METHOD].recipe("circo")
    stages: Any = {"image": OpenedFeatures(place)}
    before = time.process_time()
    features = open_gallery(stages, stages, 1.0, SearchSettings()).features
    opened = time.process_time()
    own = own_products(features["image"], features["image"])  # a service keeps them

    def best(query: np.ndarray) -> Any:
        none = np.array([[-1]])
        return top_k_apart(recipe, query, features, lambda one, other: own, BEST, none).indices

    best(queries(1))
    first = time.process_time()
    found = best(queries(2))
    second = time.process_time()
    return {
        "open": opened - before, "first": first - opened, "seconds": second - first,
        "result": found.tolist(),
    }  # fmt: skip


def search_naive(place: Place) -> Figures:
    """The best of the second query by products of the mapped matrix, which is of length one."""
    import torch

    from storage.tables.matrices import map_matrix, matrix_path

    torch.set_num_threads(1)
    held = map_matrix(place.root, matrix_path(place.features)).vectors
    images = torch.from_numpy(held)

    def bare() -> np.ndarray:
        return torch.topk(torch.from_numpy(queries(2)) @ images.T, BEST, dim=1).indices.numpy()

    bare()
    return timed(bare, lambda indices: indices.tolist())


def queries(seed: int) -> np.ndarray:
    """(1, DIM) a query."""
    return np.random.default_rng(seed).standard_normal((1, DIM), np.float32)


def timed(work: Callable[[], Any], result: Callable[[Any], Any]) -> Figures:
    """Processor seconds of some work, and what it gave."""
    before = time.process_time()
    made = work()
    return {"seconds": time.process_time() - before, "result": result(made)}


STEPS: Final[dict[str, Callable[[Place], Figures]]] = {
    "make_source": make_source,
    "take_in": take_in,
    "take_in_naive": take_in_naive,
    "take_in_again": take_in,
    "take_in_more": take_in_more,
    "make_captions": make_captions,
    "make_features": make_features,
    "make_gallery": make_gallery,
    "plan_complete": plan_complete,
    "plan_complete_naive": plan_complete_naive,
    "plan_lacking": plan_lacking,
    "plan_lacking_naive": plan_lacking_naive,
    "scattered": lambda place: vectors(place, min(SCATTERED, place.images - place.lacking)),
    "scattered_naive": lambda place: vectors_naive(
        place, min(SCATTERED, place.images - place.lacking)
    ),
    "all_vectors": lambda place: vectors(place, place.images - place.lacking),
    "all_vectors_naive": lambda place: vectors_naive(place, place.images - place.lacking),
    "search": search,
    "search_naive": search_naive,
}


def run_step(step: str, place: Place) -> Figures:
    """One step in this process: its figures, processor seconds and peak bytes."""
    before = time.process_time()
    figures = STEPS[step](place)
    figures = {"seconds": time.process_time() - before, **figures}
    # not ru_maxrss: after fork and exec that still holds the parent's peak
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
    if "result" in figures and not isinstance(figures["result"], float | int):
        figures["result"] = sha256_hex(json.dumps(figures["result"]).encode())
    return {**figures, "peak": peak}


# --------------------------------------------------------------------------- fresh processes


def measured(step: str, place: Place) -> Figures:
    """Run a step in a fresh process."""
    words = ["--one", step, "--root", str(place.folder), "--images", str(place.images)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.million", *words], check=True, stdout=subprocess.PIPE
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def commanded(words: Iterable[str]) -> Figures:
    """Processor seconds and peak bytes of a whole command, its children included."""
    command = [sys.executable, "-m", "deployments.cli", *words]
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n{errors.read()}")
    return {"seconds": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024}


def once(step: str, place: Place) -> Figures:
    """Run a step that makes something, unless it was run in this folder before."""
    kept = place.folder / f"{step}-{place.images}.json"
    if not kept.exists():
        kept.write_text(json.dumps(measured(step, place)))
    return dict(json.loads(kept.read_text()))


def said(figures: Figures) -> str:
    """Seconds and memory in words."""
    return f"{figures['seconds']:.2f} s and {figures['peak'] / 2**20:,.0f} MiB"


def compared(
    what: str, step: str, place: Place, allowed: float | None, **known: Figures
) -> Verdict:
    """A step against its bare form, once; both must give the same."""
    own = dict(known.get("own") or measured(step, place))
    bare = dict(known.get("bare") or measured(f"{step}_naive", place))
    held = allowed is None or own["seconds"] <= allowed * bare["seconds"]
    return stated(what, step, place, allowed, "ok" if held else "MISSED", [(own, bare)])


def repeated(what: str, step: str, place: Place, allowed: float) -> Verdict:
    """A step that changes nothing against its bare form, in turns until the ratios are steady."""
    pairs: list[tuple[Figures, Figures]] = []
    ratios: list[float] = []
    while len(pairs) < LEAST or (len(pairs) < MOST and not is_steady(ratios)):
        own, bare = measured(step, place), measured(f"{step}_naive", place)
        pairs.append((own, bare))
        ratios.append(own["seconds"] / bare["seconds"])
    return stated(what, step, place, allowed, judge(ratios, at_most=allowed), pairs)


def stated(
    what: str,
    step: str,
    place: Place,
    allowed: float | None,
    verdict: Verdict,
    pairs: Sequence[tuple[Figures, Figures]],
) -> Verdict:
    """Report the middle pair of turns; where two results differ, the bound is missed."""
    ordered = sorted(pairs, key=lambda pair: pair[0]["seconds"] / pair[1]["seconds"])
    own, bare = (dict(each) for each in ordered[len(ordered) // 2])
    same = all(mine["result"] == theirs["result"] for mine, theirs in pairs)
    ratio = own["seconds"] / bare["seconds"]
    limit = f", allowed {allowed}x" if allowed else ""
    turns = f", the median of {len(pairs)}" if len(pairs) > 1 else ""
    return report(
        f"million_{step}",
        f"{place.images:,} images, {what}: {said(own)}, bare {said(bare)} ({ratio:.2f}x{turns}"
        f"{limit}{'' if same else ', RESULTS DIFFER'})",
        verdict if same else "MISSED",
        {
            "images": place.images,
            "ratio": ratio,
            "ratios": [mine["seconds"] / theirs["seconds"] for mine, theirs in pairs],
            "allowed": allowed,
            "own": own,
            "bare": bare,
        },
    )


def told(what: str, name: str, place: Place, own: Figures, allowed: float | None = None) -> Verdict:
    """A figure by itself, held against a bound in seconds where there is one."""
    limit = f" (allowed {allowed:.0f} s)" if allowed else ""
    return report(
        f"million_{name}",
        f"{place.images:,} images, {what}: {said(own)}{limit}",
        "ok" if allowed is None or own["seconds"] <= allowed else "MISSED",
        {"images": place.images, "allowed": allowed, **own},
    )


def main(place: Place) -> list[Verdict]:
    """Make the root, and measure what reads it."""
    place.folder.mkdir(parents=True, exist_ok=True)
    once("make_source", place)
    taken, bare = once("take_in", place), once("take_in_naive", place)
    for step in ("make_captions", "make_features", "make_gallery"):
        made = once(step, place)
        print(f"{step}: {said(made)}, {made['shards']} shards, planned in {made['planned']:.2f} s")
    root = ["--set", f"root={place.root.root}"]
    rerun = ["run", "backfill-captions", "--json", "--set", f"collection={NAME}", *root]
    look = ["search", "--gallery", NAME, "--image", str(place.folder / "query.png"), "--json"]
    look += ["--text", "is blue", "--method", METHOD, *root]
    lacking = f"{place.lacking} missing"
    scattered = f"{SCATTERED} scattered vectors"
    return [
        compared("ingest against hash-and-decode", "take_in", place, None, own=taken, bare=bare),
        told("ingest with nothing new", "again", place, measured("take_in_again", place)),
        told("ingest of a thousandth more", "more", place, once("take_in_more", place)),
        compared("plan, nothing missing", "plan_complete", place, READ_RATIO),
        repeated("plan again", "plan_complete", place, READ_RATIO),
        compared(f"plan, {lacking}", "plan_lacking", place, READ_RATIO),
        repeated(f"plan again, {lacking}", "plan_lacking", place, READ_RATIO),
        told("rerun of captions", "rerun", place, commanded(rerun), RERUN_SECONDS),
        repeated(scattered, "scattered", place, READ_RATIO)
        if place.images >= MANY
        else compared(scattered, "scattered", place, None),
        repeated("all vectors", "all_vectors", place, READ_RATIO),
        compared("first search", "search", place, None),
        compared("search", "search", place, None),
        told("first `cirflow search`", "command", place, commanded(look)),
        told("`cirflow search` again", "command_again", place, commanded(look)),
    ]


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--images", type=whole_number, default=IMAGES, help="of the root")
    parser.add_argument("--root", default="", help="a folder that is kept")
    parser.add_argument("--one", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run_step(given.one, Place(Path(given.root), given.images))))
    elif given.root:
        sys.exit(exit_status(main(Place(Path(given.root), given.images))))
    else:
        with tempfile.TemporaryDirectory() as made:
            sys.exit(exit_status(main(Place(Path(made), given.images))))
