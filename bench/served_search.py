"""Milliseconds of a search by a running service, and the memory that it holds before and after.

Every search has a text of its own, so that its query is encoded; a repetition of the last ones is
ranked again from what is kept. Nothing is judged: the numbers depend on the machine.

    python -m bench.served_search URL GALLERY PID PICTURE [searches] [method]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from deployments.service.client import Client

WARM = 5
KEPT = 50


def milliseconds(
    client: Client, gallery: str, image_id: str, method: str, texts: Iterable[str]
) -> list[float]:
    """The time of each search as its client sees it."""
    found = []
    for text in texts:
        began = time.perf_counter()
        client.search(gallery, text, image_id=image_id, method=method, k=12)
        found.append(1000 * (time.perf_counter() - began))
    return found


def said(name: str, times: list[float]) -> str:
    """Median and 95th percentile."""
    high = statistics.quantiles(times, n=20)[-1]
    return f"{name}: p50 {statistics.median(times):.0f} ms, p95 {high:.0f} ms of {len(times)}"


def main(
    url: str, gallery: str, pid: str, picture: str, searches: str = "500", method: str = "lincir"
) -> None:
    """Search, and print times and resident megabytes."""
    process = psutil.Process(int(pid))
    with Client(url) as client:
        image_id = client.upload(Path(picture).read_bytes()).image_id
        milliseconds(client, gallery, image_id, method, (f"warm {i}" for i in range(WARM)))
        texts = [f"the same with {number} red stripes" for number in range(int(searches))]
        before = process.memory_info().rss
        made = milliseconds(client, gallery, image_id, method, texts[: len(texts) // 2])
        middle = process.memory_info().rss
        made += milliseconds(client, gallery, image_id, method, texts[len(texts) // 2 :])
        after = process.memory_info().rss
        kept = milliseconds(client, gallery, image_id, method, texts[-KEPT:])
    print(said(f"{method}, encoded", made))
    print(said(f"{method}, ranked again", kept))
    print(
        "resident MiB at 0, half and all:", *(f"{x / 2**20:.0f}" for x in (before, middle, after))
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
