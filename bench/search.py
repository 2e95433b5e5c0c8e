"""Exact top-50 at CIRCO's size against the bare products, and its memory.

The baseline multiplies the same blocks and takes ``torch.topk`` of each and of the joined
candidates, with no promise about ties, no exclusion and no checks. The two take turns on every
gallery block, on one thread and by processor time; the median of the repeats counts. Memory is the
growth of the peak resident set of a fresh process that searches a memory-mapped float16 gallery.

    python -m bench.search
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench.command_line import command_line
from bench.verdict import Verdict, exit_status, judge, report
from models.retrieval.search import GALLERY_BLOCK, top_k

QUERIES: Final = 800
GALLERY: Final = 123_403
DIM: Final = 768
K: Final = 50
REPEATS: Final = 6
ALLOWED_RATIO: Final = 1.3
ALLOWED_BYTES: Final = 1 << 30  # beyond the gallery


def unit_rows(rows: int, seed: int) -> np.ndarray:
    """(rows, DIM) float32 random unit vectors."""
    features = np.random.default_rng(seed).standard_normal((rows, DIM), dtype=np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


class BareTopK:
    """The baseline: blocked products and ``torch.topk``, timed block by block."""

    def __init__(self, queries: np.ndarray) -> None:
        self._queries = torch.from_numpy(queries)
        self._found: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._start = 0
        self.seconds: list[float] = []

    def step(self, block: np.ndarray) -> None:
        """The next gallery block."""
        began = time.process_time()
        values, columns = torch.topk(self._queries @ torch.from_numpy(block).T, K, dim=1)
        self._found.append((values, columns + self._start))
        self._start += len(block)
        self.seconds.append(time.process_time() - began)

    def result(self) -> np.ndarray:
        """(Q, K) indices."""
        began = time.process_time()
        best = torch.topk(torch.cat([values for values, _ in self._found], dim=1), K, dim=1)
        columns = torch.cat([columns for _, columns in self._found], dim=1)
        indices = columns.gather(1, best.indices).numpy()
        self.seconds.append(time.process_time() - began)
        return indices


def take_turns(
    queries: np.ndarray, gallery: np.ndarray, bare_first: bool
) -> tuple[list[float], list[float], float]:
    """Seconds of the baseline and of ours for every block, and the share of equal indices."""
    bare = BareTopK(queries)
    ours: list[float] = []
    resumed = 0.0

    def stream() -> Iterator[np.ndarray]:
        nonlocal resumed
        for start in range(0, len(gallery), GALLERY_BLOCK):
            block = gallery[start : start + GALLERY_BLOCK]
            if bare_first:
                bare.step(block)
            handed = time.process_time()
            yield block
            ours.append(time.process_time() - handed)
            if not bare_first:
                bare.step(block)
            resumed = time.process_time()

    got = top_k(queries, stream(), K).indices
    ours.append(time.process_time() - resumed)
    return bare.seconds, ours, float((got == bare.result()).mean())


def compare_times() -> dict[str, Any]:
    """Ratios of the repeats, median seconds of both, and whether the results are right."""
    torch.set_num_threads(1)
    queries, gallery = unit_rows(QUERIES, 0), unit_rows(GALLERY, 1)
    runs = [take_turns(queries, gallery, bare_first=turn % 2 == 0) for turn in range(REPEATS)]
    bare, ours = ([sum(run[side]) for run in runs] for side in (0, 1))
    references = np.arange(QUERIES)
    excluding = top_k(queries, gallery, K, excluded=references).indices
    return {
        "ratios": [own / base for own, base in zip(ours, bare, strict=True)],
        "baseline_seconds": statistics.median(bare),
        "seconds": statistics.median(ours),
        "same": min(run[2] for run in runs),
        "excluded_seen": float((excluding == references[:, None]).sum()),
    }


def measure_memory() -> dict[str, int]:
    """Gallery bytes and the growth of a fresh process's peak while it searches them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gallery.npy"
        np.save(path, unit_rows(GALLERY, 1).astype(np.float16))
        told = subprocess.run(
            [sys.executable, "-m", "bench.search", "--memory-of", str(path)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return {"gallery_bytes": GALLERY * DIM * 2, "grown_bytes": int(told.stdout)}


def print_growth(path: str) -> None:
    """The fresh process: search the mapped gallery, print how far the peak rose."""
    gallery = np.load(path, mmap_mode="r")
    queries = unit_rows(QUERIES, 0)
    top_k(queries, gallery[:100], K)  # library start-up is not the search's memory
    before = _status_bytes("VmRSS")
    top_k(queries, gallery, K, excluded=np.arange(QUERIES))
    print(_status_bytes("VmHWM") - before)


def _status_bytes(field: str) -> int:
    """Resident bytes, now (VmRSS) or at the highest (VmHWM)."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux: only the peak is known, in bytes on macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss here: after fork and exec that still holds the parent's peak.
    line = next(each for each in status.read_text().splitlines() if each.startswith(field))
    return int(line.split()[1]) * 1024


def main() -> list[Verdict]:
    """Measure, and print a verdict on time and one on memory."""
    memory = measure_memory()
    times = compare_times()
    allowed = memory["gallery_bytes"] + ALLOWED_BYTES
    ratio = statistics.median(times["ratios"])
    right = times["same"] > 0.999 and times["excluded_seen"] == 0
    return [
        report(
            "search",
            f"search, top {K} of {GALLERY} x {DIM} for {QUERIES} queries: {ratio:.2f}x the "
            f"bare products (allowed {ALLOWED_RATIO}x), {times['seconds']:.2f} s against "
            f"{times['baseline_seconds']:.2f} s",
            judge(times["ratios"], at_most=ALLOWED_RATIO) if right else "MISSED",
            {"ratio": ratio, "allowed": ALLOWED_RATIO, **times},
        ),
        report(
            "search_memory",
            f"search, memory: {memory['grown_bytes'] / 2**20:.0f} MiB with a gallery of "
            f"{memory['gallery_bytes'] / 2**20:.0f} MiB (allowed {allowed / 2**20:.0f} MiB)",
            "ok" if memory["grown_bytes"] <= allowed else "MISSED",
            {"allowed_bytes": allowed, **memory},
        ),
    ]


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        print_growth(given.memory_of)
    else:
        sys.exit(exit_status(main()))
