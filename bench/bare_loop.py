"""A loop without Prefect, in a process of its own: it works when a line says how many rounds."""

from __future__ import annotations

import subprocess
import sys
import time
from types import TracebackType


def busy(rounds: int) -> int:
    """Work that holds Python's lock."""
    value = 0
    for number in range(rounds):
        value = (value * 1103515245 + number) & 0x7FFFFFFF
    return value


class BareLoop:
    """The near end of such a process.

    Attributes:
        seconds: what its work took.
        waited: what this process waited for it.
        meanwhile: processor time of this process's threads while it waited.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.bare_loop"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.seconds = self.waited = self.meanwhile = 0.0

    def turn(self, rounds: int) -> None:
        """Let it work, and wait for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        started, threads = time.perf_counter(), time.process_time()
        self._process.stdin.write(f"{rounds}\n")
        self._process.stdin.flush()
        self.seconds += float(self._process.stdout.readline())
        self.waited += time.perf_counter() - started
        self.meanwhile += time.process_time() - threads

    def __enter__(self) -> BareLoop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()


def main() -> None:
    """The far end: answer every line with the seconds that its rounds took."""
    for line in sys.stdin:
        started = time.perf_counter()
        busy(int(line))
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
