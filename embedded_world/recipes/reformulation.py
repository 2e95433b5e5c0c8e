"""The embedded reformulation network: InstructCIR, trained on drawn pictures alone.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.reformulation --work DIR --out DIR2

The pictures carry no text: the shipped LLaVA captions them, and the shipped text generator writes
the changes between two pictures of a class. The recipe uses the command line as a user does, one
run of `cirflow` for each flow. A stopped run resumes. `--scores FOLDER` only scores a network.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedded_world.benchmarks import WorldSize
from embedded_world.recipes.commands import FOLDERS, command, recipe_options, start, write_recipe
from embedded_world.training_parameters import EMBEDDED_TRAINING
from embedded_world.unlabelled_collections import UnlabelledSize, write_unlabelled
from storage.collections.collection import ingest
from storage.locations.location import Location

COMMAND = command("reformulation", "--work DIR --out models/embedded/instructcir")
WORLDS = (101, 102)
"""Seeds of the drawn benchmarks that the gates are measured on; results are reported on others."""
WORLD_SIZE = WorldSize(subsets=200, circo_queries=150, fashion_queries=40)

SHIPPED = ("config.json", "model.safetensors", "target.safetensors", "combiner.safetensors")
SHIPPED_TOO = ("bpe.txt.gz", "curves.csv")


def run_flow(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Run a flow by the command line in a process of its own.

    Args:
        name: The flow, as in `cirflow run NAME`.
        values: Its parameters, and settings of the profile by dotted name.

    Returns:
        The flow's result.

    Raises:
        subprocess.CalledProcessError: The flow failed; its messages are on standard error.
    """
    command = [sys.executable, "-m", "deployments.cli", "run", name, "--json"]
    for key, value in values.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def make_triplets(work: Path, size: UnlabelledSize, pairs: int, seed: int) -> dict[str, Any]:
    """Draw, ingest and caption the collections, and write the changes.

    Returns:
        The result of the flow `generate-triplets`.
    """
    tables = str(work / "tables")
    collections = write_unlabelled(work / "pictures", size, seed)
    for name, folder in collections.items():
        ingest(Location(tables), folder, name)
    return run_flow(
        "generate-triplets",
        {
            "root": tables,
            "collections": list(collections),
            "count": pairs,
            "seed": seed,
            "out": str(work / "triplets"),
        },
    )


def train(work: Path, triplets: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train on the triplets; returns the result of the flow `train-reformulation`."""
    values = {"root": str(work / "tables"), "triplets": triplets, "seed": seed}
    return run_flow("train-reformulation", {**values, **EMBEDDED_TRAINING})


def world_scores(
    network: Path, work: Path, seeds: Sequence[int] = WORLDS, size: WorldSize = WORLD_SIZE
) -> dict[str, dict[str, float]]:
    """The main metric of each benchmark on drawn worlds: online queries, without the combiner.

    Args:
        network: Folder of the network.
        work: Folder of worlds and tables; finished parts are reused.
        seeds: Seeds of the worlds.
        size: How many queries each world has.

    Returns:
        Percent by world ("world SEED") and benchmark.
    """
    run_flow(
        "evaluate-world",
        {
            "seeds": list(seeds),
            "methods": ["instructcir-no-combiner"],
            "instructcir.checkpoint": str(network.resolve()),
            "subsets": size.subsets,
            "circo_queries": size.circo_queries,
            "fashion_queries": size.fashion_queries,
            "out": str(work),
        },
    )
    tables = json.loads((work / "summary.json").read_text())
    return {
        f"world {seed}": {name: rows[0]["seeds"][i] for name, rows in tables.items()}
        for i, seed in enumerate(seeds)
    }


def ship(checkpoint: Path, out: Path) -> None:
    """Copy a published network; its model card is written by hand and stays."""
    out.mkdir(parents=True, exist_ok=True)
    for name in (*SHIPPED, *SHIPPED_TOO):
        shutil.copyfile(checkpoint / name, out / name)


def children_seconds() -> float:
    """CPU seconds of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Make triplets, train on them, and write the network with its scores."""
    parser = recipe_options(__doc__, "work", seed=7, images=8_000, pairs=32_000)
    parser.add_argument("--out", type=Path, help=FOLDERS["out"])
    parser.add_argument("--scores", type=Path, help="score the network in this folder instead")
    args = start(parser)
    if args.scores is None and args.out is None:
        parser.error("give --out DIR to train, or --scores FOLDER")
    # A machine that trains on one core starts Prefect's temporary server slowly.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    if args.scores is not None:
        print(json.dumps(world_scores(args.scores, args.work)))
        return
    size = UnlabelledSize(ranges=args.images, sets=args.images)
    made = make_triplets(args.work, size, args.pairs, args.seed)
    started = children_seconds()
    trained = train(args.work, made["triplets"], args.seed)
    spent = children_seconds() - started
    ship(Path(trained["checkpoint"]), args.out)
    write_recipe(
        args.out,
        COMMAND,
        steps=trained["steps"],
        cpu_seconds=spent,
        settings={**vars(args), **EMBEDDED_TRAINING},
        gates={"triplets": made["statuses"], **world_scores(args.out, args.work)},
    )


if __name__ == "__main__":
    main()
