"""Exact search in a gallery in host memory: `top_k` against bare blocks of products and top-k.

Both read every gallery vector once for all queries, from the host's memory to the device: that
copy is the limit. Bare is a loop of `torch.topk` over blocks, ties in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch

from bench.gpu.case import Case
from bench.gpu.records import Row, Work
from bench.gpu.timing import Clock
from models.retrieval.search import GALLERY_BLOCK, top_k

QUERIES: Final = 1000
IMAGES: Final = 10_000_000
WIDTH: Final = 768
BEST: Final = 50
_MADE_AT_ONCE: Final = 100_000


def measure(case: Case) -> Iterator[Row]:
    """One row: all queries over all images."""
    queries, images, width, best = (
        (20, 3000, 16, 5) if case.small else (QUERIES, IMAGES, WIDTH, BEST)
    )
    clock = Clock(case.device)
    asked = _unit_rows(queries, width, case.device, seed=1)
    gallery = np.empty((images, width), np.float16)
    for start in range(0, images, _MADE_AT_ONCE):
        block = gallery[start : start + _MADE_AT_ONCE]
        block[:] = _unit_rows(len(block), width, case.device, seed=start + 2)
    found: dict[str, np.ndarray] = {}

    def ours() -> None:
        found["ours"] = top_k(asked, gallery, best, device=str(case.device)).indices

    def bare() -> None:
        found["bare"] = bare_top_k(asked, gallery, best, case.device)

    memory = clock.peak_of(ours)
    bare()
    turns = clock.interleaved(ours, bare, case.until, warm=True)
    assert turns.bare_seconds is not None
    same = float((found["ours"] == found["bare"]).mean())
    yield Row(
        part="search",
        what=f"{queries:,} queries, top {best} of {images:,} x {width} float16 in host memory",
        unit="queries",
        rate=queries / turns.seconds,
        bare=queries / turns.bare_seconds,
        spread=turns.spread,
        turns=len(turns.ours),
        work=Work(
            flops=2.0 * images * width,
            dtype=case.full,
            moved=gallery.nbytes / queries,
            uploaded=gallery.nbytes / queries,
        ),
        memory=memory,
        note=f"{turns.seconds:.2f} s for all; {100 * same:.2f} % of the places as in the bare form",
        more={"same_places": same},
    )


def bare_top_k(
    queries: np.ndarray, gallery: np.ndarray, best: int, device: torch.device
) -> np.ndarray:
    """(Q, best) indices of the largest products, block by block in float32."""
    asked = torch.from_numpy(queries).to(device, torch.float32)
    values = torch.empty(len(queries), 0, device=device)
    columns = torch.empty(len(queries), 0, dtype=torch.long, device=device)
    for start in range(0, len(gallery), GALLERY_BLOCK):
        block = torch.from_numpy(gallery[start : start + GALLERY_BLOCK]).to(device).float()
        scores = torch.topk(asked @ block.T, min(best, len(block)), dim=1)
        values = torch.cat([values, scores.values], dim=1)
        columns = torch.cat([columns, scores.indices + start], dim=1)
        values, kept = torch.topk(values, min(best, values.shape[1]), dim=1)
        columns = columns.gather(1, kept)
    return columns.cpu().numpy()


def _unit_rows(count: int, width: int, device: torch.device, seed: int) -> np.ndarray:
    """Random unit vectors (count, width) float16, drawn on the device."""
    stream = torch.Generator(device).manual_seed(seed)
    rows = torch.randn(count, width, device=device, generator=stream)
    return torch.nn.functional.normalize(rows, dim=1).half().cpu().numpy()
