"""An asyncio event loop in a thread of its own, so that a plain iterator can be fed by it."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
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
        """Results of `work(item)` as they come; at most `limit` items are taken ahead of them."""
        stream = iter(items)
        in_flight: set[Future[Result]] = set()
        try:
            while True:
                for item in itertools.islice(stream, limit - len(in_flight)):
                    in_flight.add(asyncio.run_coroutine_threadsafe(work(item), self._loop))
                if not in_flight:
                    return
                done, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in in_flight:
                future.cancel()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
