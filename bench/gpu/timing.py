"""Time and memory on a device: what was asked of it is waited for, and two forms take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from bench.verdict import spread

MOST_TURNS: Final = 21
_TURN_SECONDS: Final = (0.02, 1.5)
"""A turn should take this long at least, so that starting it does not count, and at most."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Seconds of each turn of ours and of the bare form (none without one)."""

    ours: tuple[float, ...]
    bare: tuple[float, ...] = ()

    @property
    def seconds(self) -> float:
        """Median of ours."""
        return statistics.median(self.ours)

    @property
    def bare_seconds(self) -> float | None:
        """Median of the bare form."""
        return statistics.median(self.bare) if self.bare else None

    @property
    def spread(self) -> float | None:
        """Of ours, relative to the median; None where the turns are too few to tell."""
        return spread(self.ours) if len(self.ours) > 3 else None


class Clock:
    """Times work on one device."""

    def __init__(self, device: torch.device) -> None:
        """On a device."""
        self.device = device
        self._cuda = device.type == "cuda"

    def settle(self) -> None:
        """Wait until the device has done everything, on all of its streams."""
        if self._cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """Seconds from an idle device to an idle device, what the host does included."""
        self.settle()
        begun = time.perf_counter()
        work()
        self.settle()
        return time.perf_counter() - begun

    def kernel_seconds(self, work: Callable[[], object], times: int) -> float:
        """Seconds of one call among many that the device runs without a gap.

        On a GPU they are read from events of the stream, so that the launches of the host do not
        count where they are faster than the work.
        """
        if not self._cuda:
            return self.seconds(lambda: [work() for _ in range(times)]) / times
        begun = torch.cuda.Event(enable_timing=True)
        ended = torch.cuda.Event(enable_timing=True)
        self.settle()
        with torch.cuda.device(self.device):
            begun.record()
            for _ in range(times):
                work()
            ended.record()
        ended.synchronize()
        return begun.elapsed_time(ended) / 1e3 / times

    def peak_of(self, work: Callable[[], object]) -> int | None:
        """Most bytes allocated on the GPU while `work` runs, what was there before included."""
        if not self._cuda:
            work()
            return None
        self.settle()
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        self.settle()
        return torch.cuda.max_memory_allocated(self.device)

    def free(self) -> int | None:
        """Bytes of the GPU that nothing holds; None on a CPU."""
        return torch.cuda.mem_get_info(self.device)[0] if self._cuda else None

    def interleaved(
        self,
        ours: Callable[[], object],
        bare: Callable[[], object] | None,
        until: float,
        *,
        warm: bool = False,
    ) -> Turns:
        """Run both in turns: once for warm-up, then until their time is used up.

        Args:
            ours: The project's form.
            bare: The bare form of the same work.
            until: `time.time()` by which the last turn should have ended; one is always taken.
            warm: Whether both ran before.
        """
        forms = [ours] if bare is None else [ours, bare]
        if not warm:
            for form in forms:
                self.seconds(form)
        taken: list[list[float]] = [[] for _ in forms]
        while not taken[0] or (
            len(taken[0]) < MOST_TURNS and time.time() + sum(t[-1] for t in taken) < until
        ):
            for form, seconds in zip(forms, taken, strict=True):
                seconds.append(self.seconds(form))
        return Turns(*(tuple(seconds) for seconds in taken))


def repeats(seconds: float, budget: float) -> int:
    """How often work of so many seconds is done in one turn, of which a dozen should fit.

    Args:
        seconds: Of doing it once.
        budget: Seconds for all turns of both forms.
    """
    least, most = _TURN_SECONDS
    turn = min(most, max(least, budget / 24))
    return max(1, round(turn / max(seconds, 1e-9)))
