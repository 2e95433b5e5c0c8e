"""The embedded reformulation network: InstructCIR, trained on drawn pictures alone.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.reformulation --work DIR --out DIR2

Nobody says anything about the pictures: the shipped LLaVA captions them, the shipped text generator
writes what changes between two of a class, and the product's own flows make triplets and train on
them. A run that was stopped goes on where it was. `--scores FOLDER` only scores a network.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from embedded_world.benchmarks import WorldSize, write_world
from embedded_world.recipes.training import one_thread, write_recipe
from embedded_world.unlabelled import UnlabelledSize, write_unlabelled
from flows.profiles import EMBEDDED_TRAINING
from models.instructcir.checkpoint import LoadedNetwork, load_network
from models.instructcir.encoder import ReformulationEncoder
from storage.benchmarks.images import require_images
from storage.benchmarks.indexing import index_category
from storage.benchmarks.records import Benchmark
from storage.benchmarks.registry import load_benchmark
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.scoring.metrics import metrics_from_scores

COMMAND = (
    "OMP_NUM_THREADS=1 python -m embedded_world.recipes.reformulation --work DIR "
    "--out models/embedded/instructcir"
)
WORLDS = (101, 102)
"""Seeds of the drawn benchmarks that the gates are measured on; results are reported on others."""
WORLD_SIZE = WorldSize(subsets=200, circo_queries=150, fashion_queries=40)
MAIN_METRICS = {"cirr": "recall@1", "circo": "map@10", "fashioniq": "recall@10/average"}

SHIPPED = ("config.json", "model.safetensors", "target.safetensors", "combiner.safetensors")
SHIPPED_TOO = ("bpe.txt.gz", "curves.csv")


def make_triplets(work: Path, size: UnlabelledSize, pairs: int, seed: int) -> dict[str, Any]:
    """Draw and ingest the collections, then caption them and write what changes.

    Returns:
        What the flow `generate-triplets` says.
    """
    from flows.generate_triplets import generate_triplets

    tables = str(work / "tables")
    for name, folder in write_unlabelled(work / "pictures", size, seed).items():
        ingest(Location(tables), folder, name)
    return generate_triplets(
        ["ranges", "sets"],
        pairs,
        settings={"root": tables},
        seed=seed,
        out=str(work / "triplets"),
    )


def train(work: Path, triplets: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train on the triplets; returns what the flow `train-reformulation` says."""
    from flows.train_reformulation import train_reformulation

    return train_reformulation(
        dict(triplets),
        settings={"root": str(work / "tables")},
        seed=seed,
        **EMBEDDED_TRAINING,
    )


def world_scores(
    loaded: LoadedNetwork, folder: Path, seed: int, size: WorldSize = WORLD_SIZE
) -> dict[str, float]:
    """The main metric of each style on one drawn world: online queries, without the combiner.

    Args:
        loaded: The network.
        folder: Where the world is drawn, unless it is there.
        seed: Of the world.
        size: Of the world.
    """
    encoder = ReformulationEncoder(loaded, device="cpu", batch_size=128)
    found = {}
    for name, root in write_world(folder, size, seed).items():
        benchmark = require_images(load_benchmark(name, root, "val"))
        found[name] = _score(encoder, benchmark)[MAIN_METRICS[name]]
    return found


def _score(encoder: ReformulationEncoder, benchmark: Benchmark) -> dict[str, float]:
    views, blocks = {}, {}
    for category in benchmark.categories:
        view = index_category(benchmark, category)
        gallery = _unit(encoder.encode_gallery(_pictures(benchmark, benchmark.galleries[category])))
        queries = benchmark.queries_of(category)
        references = _pictures(benchmark, [query.reference for query in queries])
        z = encoder.encode_queries(references, [query.text for query in queries]).z
        views[category], blocks[category] = view, [_unit(z) @ gallery.T]
    return metrics_from_scores(benchmark, views, blocks)


def _pictures(benchmark: Benchmark, names: Sequence[str]) -> list[Image.Image]:
    return [Image.open(benchmark.image_paths[name]).convert("RGB") for name in names]


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def ship(checkpoint: Path, out: Path) -> None:
    """Copy a published network; its model card is written by hand and stays."""
    out.mkdir(parents=True, exist_ok=True)
    for name in (*SHIPPED, *SHIPPED_TOO):
        shutil.copyfile(checkpoint / name, out / name)


def main() -> None:
    """Make triplets, train on them, and write the network with what it reaches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of all that is made")
    parser.add_argument("--out", type=Path, help="folder of the model")
    parser.add_argument("--scores", type=Path, help="score this network instead")
    parser.add_argument("--images", type=int, default=8_000, help="of each collection")
    parser.add_argument("--pairs", type=int, default=32_000)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    one_thread()
    if args.scores is None and args.out is None:
        parser.error("give --out DIR to train, or --scores FOLDER")
    if args.scores is not None:
        print(json.dumps(gates(args.scores, args.work)))
        return
    # A machine that trains on one core starts Prefect's temporary server slowly.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    size = UnlabelledSize(ranges=args.images, sets=args.images)
    made = make_triplets(args.work, size, args.pairs, args.seed)
    started = time.process_time()
    trained = train(args.work, made["triplets"], args.seed)
    spent = time.process_time() - started
    ship(Path(trained["checkpoint"]), args.out)
    write_recipe(
        args.out,
        COMMAND,
        steps=trained["steps"],
        cpu_seconds=spent,
        settings={**vars(args), **EMBEDDED_TRAINING},
        gates={"triplets": made["statuses"], **gates(args.out, args.work)},
    )


def gates(folder: Path, work: Path) -> dict[str, dict[str, float]]:
    """Scores on the worlds of `WORLDS`."""
    loaded = load_network(folder)
    return {
        f"world {seed}": {
            name: round(value, 2)
            for name, value in world_scores(loaded, work / f"world-{seed}", seed).items()
        }
        for seed in WORLDS
    }


if __name__ == "__main__":
    main()
