"""What is measured, as values that travel from a part's process to the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

Dtype: TypeAlias = Literal["fp32", "tf32", "fp16", "bf16"]

Limits: TypeAlias = Mapping[str, float]
"""What the device reached in this run: `matmul DTYPE` in FLOP/s; `copy` (device memory, read and
written) and `upload` (pinned host memory to device) in bytes/s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The least that one unit (an image, a token, ...) asks of a device.

    Attributes:
        flops: Operations of the model, a multiplication with its addition counting two; nothing
            that is computed twice.
        dtype: Precision of its matrix products.
        moved: Bytes of device memory read and written at least.
        uploaded: Bytes that must come from host memory.
    """

    flops: float = 0.0
    dtype: Dtype = "fp32"
    moved: float = 0.0
    uploaded: float = 0.0

    def times(self, limits: Limits) -> dict[str, float]:
        """Limit -> seconds that it alone would take for one unit; limits not measured are absent.

        A roofline (Williams, Waterman and Patterson 2009): no unit is faster than the largest.
        """
        asked = {
            f"matmul {self.dtype}": self.flops,
            "copy": self.moved,
            "upload": self.uploaded,
        }
        return {name: much / limits[name] for name, much in asked.items() if limits.get(name)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        part: The part that measured it.
        what: The work, in words.
        unit: What is counted: images, texts, tokens, triplets, queries.
        rate: Units a second, the median of the turns.
        bare: Units a second of the bare form, in turns with ours; None without one.
        spread: Quartile distance of the turns relative to their median; None below four turns.
        turns: Turns that were timed.
        work: What one unit asks.
        memory: Most bytes allocated on the device by ours; None on a CPU.
        note: What else was seen.
        more: Further values for the JSON file.
    """

    part: str
    what: str
    unit: str
    rate: float
    work: Work
    bare: float | None = None
    spread: float | None = None
    turns: int = 1
    memory: int | None = None
    note: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    def limit(self, limits: Limits) -> tuple[str, float] | None:
        """The limit that binds, and the share of it that is reached; None where none is known."""
        times = self.work.times(limits)
        if not any(times.values()):
            return None
        name = max(times, key=times.__getitem__)
        return name, self.rate * times[name]

    def utilisation(self, limits: Limits) -> float | None:
        """Share of the measured matrix products: model FLOP utilisation."""
        seconds = self.work.times(limits).get(f"matmul {self.work.dtype}")
        return self.rate * seconds if seconds else None

    def as_json(self, limits: Limits) -> dict[str, Any]:
        """All values, the ratios among them."""
        found = self.limit(limits)
        return {
            **asdict(self),
            "of_bare": self.rate / self.bare if self.bare else None,
            "limit": found[0] if found else None,
            "of_limit": found[1] if found else None,
            "mfu": self.utilisation(limits),
        }


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that was not measured.

    Attributes:
        part: The part.
        what: The work, in words.
        kind: `left out` (by plan) or `failed`.
        reason: Why.
    """

    part: str
    what: str
    kind: Literal["left out", "failed"]
    reason: str


Line: TypeAlias = Row | Gap


def to_message(line: Line | dict[str, float]) -> dict[str, Any]:
    """A line, or limits, as JSON values for the way between two processes."""
    if isinstance(line, dict):
        return {"limits": line}
    return {"row" if isinstance(line, Row) else "gap": asdict(line)}


def from_message(message: Mapping[str, Any]) -> Line | dict[str, float]:
    """The inverse of `to_message`."""
    if "limits" in message:
        return dict(message["limits"])
    if "gap" in message:
        return Gap(**message["gap"])
    values = dict(message["row"])
    return Row(**{**values, "work": Work(**values["work"])})
