"""Places of the bars in table rows, in percent of a bar's width, so that they fit any screen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_NICE: Final = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_SLIVER: Final = 0.4
"""Width of the shortest bar: it can still be seen."""


def nice_ceiling(value: float) -> float:
    """The smallest round number at or above `value` (which is positive)."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in _NICE if value <= step * power * (1 + 1e-9))


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` laid over 0 to 100 percent of the width."""

    low: float
    high: float

    def x(self, value: float) -> float:
        """Place of a value in percent, kept inside the drawing."""
        share = (value - self.low) / (self.high - self.low)
        return round(100.0 * min(max(share, 0.0), 1.0), 3)

    def bar(self, value: float) -> tuple[float, float]:
        """Left edge and width of a bar from zero to `value`, to either side."""
        start, end = sorted((self.x(0.0), self.x(value)))
        return start, max(round(end - start, 3), _SLIVER)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Place and label of both ends and the middle."""
        places = (self.low, (self.low + self.high) / 2, self.high)
        return tuple((self.x(place), f"{place:g}") for place in places)

    def steps_from_zero(self) -> tuple[tuple[float, str], ...]:
        """Place and label of zero, and of round numbers on its longer side."""
        far = self.low if -self.low > self.high else self.high
        sign, minus = (-1, "\N{MINUS SIGN}") if far < 0 else (1, "+")
        step = nice_ceiling(abs(far) / 3.5)
        shown = [step * times for times in (3, 2, 1) if step * times <= abs(far)]
        ticks = [(self.x(sign * value), f"{minus}{value:g}") for value in shown]
        return ((self.x(0.0), "0"), *ticks)


def percent_scale(values: Iterable[float]) -> Scale:
    """From zero to a round number that holds every value, at most 100."""
    highest = max(values, default=0.0)
    return Scale(0.0, min(100.0, nice_ceiling(highest)) if highest > 0 else 100.0)


def count_scale(counts: Iterable[int]) -> Scale:
    """From zero to the largest count."""
    return Scale(0.0, float(max(counts, default=0) or 1))


def difference_scale(values: Sequence[float]) -> Scale:
    """Holds zero and every difference, with a little air on both sides."""
    low, high = min([0.0, *values]), max([0.0, *values])
    air = 0.04 * (high - low) or 1.0
    return Scale(low - air, high + air)
