"""Geometry of the plots, in percent of the drawing's width, so that they fit any screen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.report.records import Interval

_NICE = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


def nice_ceiling(value: float) -> float:
    """The smallest round number at or above `value` (which is positive)."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in _NICE if value <= step * power * (1 + 1e-9))


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    x: float
    text: str


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` laid over 0 to 100 percent of the width."""

    low: float
    high: float

    def x(self, value: float) -> float:
        """Place of a value in percent, kept inside the drawing."""
        share = (value - self.low) / (self.high - self.low)
        return round(100.0 * min(max(share, 0.0), 1.0), 3)

    def ticks(self) -> tuple[Tick, ...]:
        """Both ends and the middle."""
        places = (self.low, (self.low + self.high) / 2, self.high)
        return tuple(Tick(self.x(place), f"{place:g}") for place in places)


@dataclass(frozen=True)
class Bar:
    """A bar with an optional whisker and an optional mark.

    Attributes:
        x: Left edge.
        width: Length; at least a visible sliver.
        low: Left end of the whisker, or None.
        high: Right end of the whisker, or None.
        mark: Place of the published value, or None.
    """

    x: float
    width: float
    low: float | None = None
    high: float | None = None
    mark: float | None = None


def percent_scale(values: Iterable[float]) -> Scale:
    """From zero to a round number that holds every value, at most 100."""
    highest = max(values, default=0.0)
    return Scale(0.0, min(100.0, nice_ceiling(highest)) if highest > 0 else 100.0)


def difference_scale(values: Sequence[float]) -> Scale:
    """Holds zero and every difference, with a little air on both sides."""
    low, high = min([0.0, *values]), max([0.0, *values])
    air = 0.04 * (high - low) or 1.0
    return Scale(low - air, high + air)


def bar(
    scale: Scale, value: float, interval: Interval | None = None, mark: float | None = None
) -> Bar:
    """A bar from zero to `value`, to either side.

    Args:
        scale: Scale of the plot.
        value: Where the bar ends.
        interval: (low, high) of the whisker.
        mark: A second value, drawn as a tick.
    """
    start, end = sorted((scale.x(0.0), scale.x(value)))
    low, high = (scale.x(bound) for bound in interval) if interval else (None, None)
    return Bar(
        x=start,
        width=max(round(end - start, 3), 0.4),
        low=low,
        high=high,
        mark=None if mark is None else scale.x(mark),
    )
