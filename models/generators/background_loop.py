"""An asyncio event loop in a thread of its own, so that a plain iterator can be fed by it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class BackgroundLoop:
    """A context manager around the thread; leaving it cancels what still runs."""

    def __enter__(self) -> BackgroundLoop:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Cancel what still runs, then stop the thread."""
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def map_bounded(
        self,
        work: Callable[[Item], Coroutine[Any, Any, Result]],
        items: Iterable[Item],
        limit: int,
    ) -> Iterator[Result]:
        """Results of `work(item)` as they come; at most `limit` items are taken ahead of them.

        Items are taken in a thread of their own, so that one that takes its time holds back no
        result. Work on an item counts for the meter of the context in which the item was taken.
        """
        slots, left = threading.Semaphore(limit), threading.Event()
        ended: SimpleQueue[Future[Result] | None] = SimpleQueue()
        in_flight: set[Future[Result]] = set()

        def take() -> int:
            taken, stream = 0, iter(items)
            while slots.acquire() and not left.is_set():
                try:
                    item = next(stream)
                except StopIteration:
                    break
                future = asyncio.run_coroutine_threadsafe(work(item), self._loop)
                in_flight.add(future)
                future.add_done_callback(ended.put)
                taken += 1
            return taken

        yielded = 0
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="take") as thread:
                taken = thread.submit(copy_context().run, take)
                taken.add_done_callback(lambda _: ended.put(None))
                try:
                    while not taken.done() or yielded < taken.result():
                        future = ended.get()
                        if future is not None:
                            in_flight.discard(future)
                            yield future.result()
                            yielded += 1
                            slots.release()
                finally:
                    left.set()
                    slots.release()
        finally:
            for future in in_flight:
                future.cancel()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
