"""What a run has found so far, as one JSON file and one Markdown table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.gpu.records import Gap, Line, Row

_HEAD = (
    *("part", "work", "rate", "bare", "of bare", "bound by", "of its limit", "MFU"),
    *("memory, GiB", "seen"),
)


@dataclass(slots=True)
class Results:
    """Rows, gaps and limits of one run; written after each, so that a stopped run keeps its own.

    Attributes:
        machine: Card, driver, versions, date, and whether the shapes were small.
        folder: Where `gpu.json` and `gpu.md` are written.
    """

    machine: Mapping[str, Any]
    folder: Path
    limits: dict[str, float] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)

    def add(self, found: Line | dict[str, float]) -> None:
        """Keep a line or limits, and write both files."""
        if isinstance(found, dict):
            self.limits |= found
        else:
            self.lines.append(found)
        self.write()

    def write(self) -> None:
        """Replace both files; a reader sees the old or the new ones, whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _replace(self.folder / "gpu.json", json.dumps(self.as_json(), indent=2) + "\n")
        _replace(self.folder / "gpu.md", self.as_markdown())

    def as_json(self) -> dict[str, Any]:
        """All values."""
        rows = [line.as_json(self.limits) for line in self.lines if isinstance(line, Row)]
        gaps = [asdict(line) for line in self.lines if isinstance(line, Gap)]
        return {"machine": dict(self.machine), "limits": self.limits, "rows": rows, "gaps": gaps}

    def as_markdown(self) -> str:
        """The machine, its limits, and a line for each row and gap in the order of the run."""
        said = [f"{name} {value}" for name, value in self.machine.items() if value]
        parts = ["; ".join(said) + "."]
        if self.limits:
            parts.append("Measured limits: " + ", ".join(map(_limit, self.limits.items())) + ".")
        rows = [_HEAD, ("---",) * len(_HEAD), *map(self._cells, self.lines)]
        parts.append("\n".join(f"| {' | '.join(map(_plain, row))} |" for row in rows))
        return "\n\n".join(parts) + "\n"

    def _cells(self, line: Line) -> tuple[str, ...]:
        if isinstance(line, Gap):
            empty = ("",) * (len(_HEAD) - 3)
            return (line.part, line.what, *empty, f"{line.kind}: {line.reason}")
        found = line.limit(self.limits)
        used = line.utilisation(self.limits)
        return (
            line.part,
            line.what,
            f"{_number(line.rate)} {line.unit}/s",
            _number(line.bare) if line.bare else "",
            f"{line.rate / line.bare:.2f}" if line.bare else "",
            found[0] if found else "",
            _percent(found[1]) if found else "",
            _percent(used) if used else "",
            f"{line.memory / 2**30:.1f}" if line.memory else "",
            line.note,
        )


def _limit(named: tuple[str, float]) -> str:
    name, value = named
    if name.startswith("matmul"):
        return f"{name} {value / 1e12:,.1f} TFLOP/s"
    return f"{name} {value / 1e9:,.0f} GB/s"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _plain(cell: str) -> str:
    return " ".join(cell.replace("|", "/").split())


def _replace(path: Path, text: str) -> None:
    aside = path.with_suffix(f"{path.suffix}.aside")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
