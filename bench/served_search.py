"""Milliseconds of a search by a running service, and the memory that it holds before and after.

Every search has a text of its own, so that its query is encoded; a repetition of the last ones is
ranked again from what is kept. Nothing is judged: the numbers depend on the machine.

    python -m bench.served_search URL GALLERY PID PICTURE [searches] [method]

PID is the process of the service.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from deployments.errors import UserError, told
from deployments.service.client import Client, Refused, ServiceUnreachable

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
    """Search, and print times and resident megabytes.

    Raises:
        OSError: the picture cannot be read.
        Refused: the service takes no such search.
        ServiceUnreachable: no service answers.
        UserError: an argument is of no use.
    """
    process = _process(pid)
    if not searches.isdecimal() or int(searches) < 2:
        raise UserError(f"{searches!r} is not a number of searches; give 2 or more")
    reference = Path(picture).read_bytes()
    with Client(url) as client:
        image_id = client.upload(reference).image_id
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


def _process(pid: str) -> psutil.Process:
    try:
        return psutil.Process(int(pid))
    except (ValueError, psutil.NoSuchProcess):
        raise UserError(f"{pid!r} is not a process; give that of `cirflow serve`") from None


def asked(arguments: list[str]) -> int:
    """Run with words of a command line; returns the exit status."""
    if not 4 <= len(arguments) <= 6:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        main(*arguments)
    except (Refused, ServiceUnreachable) as error:
        said = str(error)
    except (OSError, UserError) as error:
        said = told(error)
    else:
        return 0
    print(f"served_search: {said}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(asked(sys.argv[1:]))
