"""Ends a command that SIGTERM or Ctrl-C asks to stop: soon, and with a line on how to resume."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

GRACE_S: Final = 6.0
"""Seconds for the run to be noted as stopped and for the temporary server to end."""
RESUMED: Final = (
    "finished shards are published and a training keeps its last saved state: run the command "
    "again to resume"
)
"""What to do after a stop of most commands."""


class Stopped(KeyboardInterrupt):
    """SIGTERM came: the command leaves as it does after Ctrl-C."""


class Stop:
    """Whether the command was asked to stop.

    Attributes:
        asked: A signal came.
    """

    def __init__(self, then: str) -> None:
        """Nothing came yet; `then` says what to do after a stop."""
        self.asked = False
        self._then = then
        self._said = False

    def say(self, number: int) -> int:
        """Say once how to resume; returns the exit status after a signal."""
        if not self._said:
            self._said = True
            print(f"\ncirflow: stopped; {self._then}", file=sys.stderr, flush=True)
        return 128 + number

    def watch(self, signals: int) -> None:
        """End the process where its main thread does not in time, or at a second Ctrl-C.

        What the main thread does after a signal can take minutes: Prefect's client asks a server
        that has ended again and again.

        Args:
            signals: File descriptor that gives the number of each signal as a byte.
        """
        while read := os.read(signals, 1):
            number = read[0]
            if number == signal.SIGINT and self.asked:
                os._exit(self.say(number))
            if number in (signal.SIGINT, signal.SIGTERM) and not self.asked:
                self.asked = True
                threading.Thread(target=self._end_late, args=(number,), daemon=True).start()
        os.close(signals)

    def _end_late(self, number: int) -> None:
        time.sleep(GRACE_S)
        os._exit(self.say(number))


@contextmanager
def stopped_by_signals(then: str) -> Iterator[Stop]:
    """Raise `Stopped` at SIGTERM or SIGHUP, and see to it that a stop does not take long.

    Prefect and Lightning put handlers of their own in the place of this one while they run; the
    numbers come by another way, whatever handles it. After a stop all of this stays until
    the process ends.

    Args:
        then: What to do after a stop, for the message.
    """
    stop = Stop(then)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handler = signal.signal(signal.SIGTERM, _raise)
    hung_up = signal.getsignal(signal.SIGHUP)
    if hung_up is signal.SIG_DFL:  # `nohup` ignores it
        signal.signal(signal.SIGHUP, _as_terminated)
    descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=stop.watch, args=(reading,), daemon=True).start()
    try:
        yield stop
    finally:
        if not stop.asked:
            signal.set_wakeup_fd(descriptor)
            signal.signal(signal.SIGTERM, handler)
            signal.signal(signal.SIGHUP, hung_up)
            os.close(writing)


def _raise(number: int, frame: Any) -> NoReturn:
    raise Stopped


def _as_terminated(number: int, frame: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # a terminal that is closed ends what it began
