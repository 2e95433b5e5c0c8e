"""Work in threads, a bounded way ahead of the code that takes the results, such as a model."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS: Final = 32
"""Each holds a whole picture: one of 12 megapixels takes about 0.1 GB while it is decoded."""


def worker_threads(chosen: int = 0) -> int:
    """The number chosen, or for 0 one for each core that this process may use, at most 32."""
    if chosen:
        return chosen
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MOST_THREADS)
    return min(os.cpu_count() or 1, MOST_THREADS)


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Generator[Result, None, None]:
    """The results of some items in their order, made in threads.

    Closing the iterator drops what has not begun and waits for what has, so that no thread is
    left. Items are fetched where results are taken.

    Args:
        work: Makes one result; what it raises is raised where the result is taken.
        items: What results are made of.
        threads: Results made at a time.
        ahead: Most items that are begun before the first of them is taken.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
