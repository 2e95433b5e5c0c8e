"""Exact top-50 of a million mapped vectors against the better of bare products and faiss.

One query is searched as the service and `cirflow search` do: mapped float16 copies find the
candidates, mapped float32 rows rank them. More queries are multiplied with the float16 rows
themselves. Both baselines hold the vectors as float32 in memory: ``torch.topk`` of products, and
faiss's ``IndexFlatIP`` where the extra `approximate` is installed. All take turns on one thread and
by processor time; the median of the ratios counts. 1,000 queries search the first eighth of the
rows, since their cost grows evenly with them. Memory is what a fresh process needs beyond the
mapped pages. The files lie in a temporary folder, 4.6 GB.

    python -m bench.mapped_search [rows]
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench.command_line import command_line, whole_number
from bench.verdict import Verdict, exit_status, judge, report
from models.retrieval.apart import own_products, top_k_apart
from models.retrieval.gallery import Halves, Rows
from models.retrieval.method_records import Recipe
from models.retrieval.search import GALLERY_BLOCK, top_k

ROWS: Final = 1_000_000
DIM: Final = 768
K: Final = 50
BATCHES: Final = {1: (1, 9), 16: (1, 5), 1000: (8, 3)}
"""Queries -> the divisor of the rows that they search, and the turns."""
ALLOWED_RATIO: Final = 1.1
ALLOWED_BYTES: Final = 1 << 30

Search = Callable[[np.ndarray], np.ndarray]


class Files:
    """Random unit vectors in a folder, as float32 and as float16."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, rows: int) -> None:
        """Write them in blocks."""
        whole, halves = (
            np.lib.format.open_memmap(self.folder / f"{dtype}.npy", "w+", dtype, (rows, DIM))
            for dtype in ("float32", "float16")
        )
        rng = np.random.default_rng(1)
        for start in range(0, rows, GALLERY_BLOCK):
            block = rng.standard_normal((len(whole[start : start + GALLERY_BLOCK]), DIM), "f4")
            block /= np.linalg.norm(block, axis=1, keepdims=True)
            whole[start : start + len(block)] = halves[start : start + len(block)] = block
        whole.flush()
        halves.flush()

    def map(self, dtype: str) -> np.ndarray:
        """The vectors in one type."""
        found: np.ndarray = np.load(self.folder / f"{dtype}.npy", mmap_mode="c")
        return found

    def one_query(self) -> Search:
        """The search of a person's query."""
        whole = Rows(self.map("float32"))
        own = own_products(whole, whole)  # they lie behind the copies
        rows = {"image": Rows(whole.matrix, halves=Halves(self.map("float16"), own))}
        recipe = Recipe(query={"text": 1.0})

        def search(queries: np.ndarray) -> np.ndarray:
            none = np.array([[-1]])
            return top_k_apart(recipe, queries, rows, lambda one, other: own, K, none).indices

        return search


def baselines(gallery: np.ndarray) -> dict[str, Search]:
    """The bare ways to the best K of float32 vectors, by name."""
    images = torch.empty(gallery.shape)
    for start in range(0, len(gallery), GALLERY_BLOCK):
        images[start : start + GALLERY_BLOCK] = torch.from_numpy(
            gallery[start : start + GALLERY_BLOCK]
        )
    block = len(images) if len(images) * 4 < 2**26 else 2**22

    def bare(queries: np.ndarray) -> np.ndarray:
        asked, found = torch.from_numpy(queries), []
        step = max(GALLERY_BLOCK, block // len(queries))
        for start in range(0, len(images), step):
            best = torch.topk(asked @ images[start : start + step].T, K, dim=1)
            found.append((best.values, best.indices + start))
        values, columns = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
        return columns.gather(1, torch.topk(values, K, dim=1).indices).numpy()

    ways: dict[str, Search] = {"bare": bare}
    try:
        faiss: Any = importlib.import_module("faiss")
    except ImportError:
        return ways
    faiss.omp_set_num_threads(1)
    flat = images.numpy()
    ways["faiss"] = lambda queries: faiss.knn(queries, flat, K, faiss.METRIC_INNER_PRODUCT)[1]
    return ways


def measure(files: Files, count: int, rows: int, turns: int) -> dict[str, Any]:
    """Processor seconds of each way, turn by turn, and how alike the lists are."""
    queries = np.random.default_rng(count).standard_normal((count, DIM), np.float32)
    gallery = files.map("float32" if count == 1 else "float16")[:rows]
    ways = {
        **baselines(gallery),
        "ours": files.one_query() if count == 1 else lambda asked: top_k(asked, gallery, K).indices,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    lists: dict[str, np.ndarray] = {}
    for turn in range(turns + 1):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            began = time.process_time()
            lists[name] = ways[name](queries)
            if turn:  # the first one warms up
                seconds[name].append(time.process_time() - began)
    better = min(ways.keys() - {"ours"}, key=lambda name: statistics.median(seconds[name]))
    pairs = zip(seconds["ours"], seconds[better], strict=True)
    return {
        "against": better,
        "ratios": [own / base for own, base in pairs],
        "medians": {name: statistics.median(own) for name, own in seconds.items()},
        "same": float((lists["ours"] == lists["bare"]).mean()),
    }


def memory_of(files: Files) -> int:
    """Bytes beyond mapped pages that a fresh process needs at most."""
    command = [sys.executable, "-m", "bench.mapped_search", "--memory-of", str(files.folder)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(told.stdout)


def print_memory(files: Files) -> None:
    """The fresh process: one query and 1,000, then the growth of anonymous memory."""
    gallery = files.map("float16")
    queries = np.random.default_rng(2).standard_normal((1000, DIM), np.float32)
    top_k(queries[:1], gallery[:100], K)  # library start-up is not the search's memory
    before, most = _anonymous(), 0

    def watched() -> Any:
        nonlocal most
        for start in range(0, len(gallery), 8 * GALLERY_BLOCK):  # few: the products take long
            yield gallery[start : start + GALLERY_BLOCK]
            most = max(most, _anonymous())

    files.one_query()(queries[:1])
    most = max(most, _anonymous())
    top_k(queries, watched(), K)
    print(most - before)


def _anonymous() -> int:
    """Resident bytes that are not pages of a file (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def main(rows: int = ROWS) -> list[Verdict]:
    """Measure, and print a verdict for each batch and one on memory."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder))
        files.write(rows)
        grown = memory_of(files)
        found: Mapping[int, dict[str, Any]] = {
            count: measure(files, count, rows // part, turns)
            for count, (part, turns) in BATCHES.items()
        }
    verdicts = []
    for count, own in found.items():
        ratio, medians = statistics.median(own["ratios"]), own["medians"]
        what = ", ".join(f"{name} {1000 * each:.0f} ms" for name, each in medians.items())
        verdicts.append(
            report(
                "mapped_search",
                f"mapped float16 search, top {K} of {rows // BATCHES[count][0]} x {DIM} for "
                f"{'one query' if count == 1 else f'{count} queries'}: {ratio:.2f}x of "
                f"{own['against']} (allowed {ALLOWED_RATIO}x); {what}",
                judge(own["ratios"], at_most=ALLOWED_RATIO) if own["same"] > 0.999 else "MISSED",
                {"queries": count, "ratio": ratio, "allowed": ALLOWED_RATIO, **own},
            )
        )
    verdicts.append(
        report(
            "mapped_search_memory",
            f"mapped float16 search, memory beyond the map: {grown / 2**20:.0f} MiB (allowed "
            f"{ALLOWED_BYTES / 2**20:.0f} MiB)",
            "ok" if grown <= ALLOWED_BYTES else "MISSED",
            {"allowed_bytes": ALLOWED_BYTES, "grown_bytes": grown},
        )
    )
    return verdicts


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("rows", nargs="?", type=whole_number, default=ROWS, help="of the gallery")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        print_memory(Files(Path(given.memory_of)))
    else:
        sys.exit(exit_status(main(given.rows)))
