"""Progress bars and summaries in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

console = Console(stderr=True)
LINE_EVERY = 15.0
"""Seconds between two progress lines where there is no terminal to draw a bar in."""


@contextmanager
def stage_display(title: str, todo: int, present: int) -> Iterator[Callable[[int], None]]:
    """Show one stage: a bar with throughput and time left, or lines where output is a file."""
    if present and not todo:
        console.print(f"[dim]reused[/]  {title} ({present})", highlight=False)
        yield _silent
    elif console.is_terminal:
        with _bar() as bar:
            task = bar.add_task(title, total=todo or None, speed="")
            yield _bar_listener(bar, task)
    else:
        yield _line_listener(title, todo)


@contextmanager
def work_display(title: str, todo: int, present: int) -> Iterator[Callable[[int], None]]:
    """Show one stage as `stage_display` does, unless everything of it exists."""
    with (
        nullcontext(_silent) if present and not todo else stage_display(title, todo, present) as on
    ):
        yield on


def _silent(count: int) -> None:
    """Nothing is shown."""


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


class Pace:
    """Items a second since the first ones came: what comes before them is loading a model."""

    def __init__(self) -> None:
        """Nothing came yet."""
        self._first: float | None = None
        self._since = 0

    def add(self, count: int, now: float) -> None:
        """So many came at a time in seconds."""
        if self._first is None:
            self._first = now
        else:
            self._since += count

    def rate(self, now: float) -> float:
        """Items a second; 0 until more than the first ones came."""
        if self._first is None or now <= self._first:
            return 0.0
        return self._since / (now - self._first)


def _bar_listener(bar: Progress, task: Any) -> Callable[[int], None]:
    pace = Pace()

    def advance(count: int) -> None:
        now = time.monotonic()
        pace.add(count, now)
        rate = pace.rate(now)
        bar.update(task, advance=count, speed=f"{rate:.1f}/s" if rate else "")

    return advance


def _line_listener(title: str, todo: int) -> Callable[[int], None]:
    last = time.monotonic()
    done, pace = 0, Pace()
    console.print(f"running {title}" + (f" ({todo} to make)" if todo else ""), highlight=False)

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        pace.add(count, now)
        if now - last >= LINE_EVERY:
            last = now
            rate = pace.rate(now)
            said = f", {rate:.1f}/s" if rate else ""
            left = f", {(todo - done) / rate:.0f} s left" if todo and rate else ""
            console.print(f"  {done} of {todo or '?'}{said}{left}", highlight=False)

    return advance


def show_stages(stages: Sequence[Mapping[str, Any]]) -> None:
    """A table of what each stage made, reused and failed to make."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for name in ("made", "reused", "failed", "seconds"):
        table.add_column(name, justify="right")
    for stage in stages:
        table.add_row(
            stage["title"],
            str(stage["made"]),
            str(stage["reused"]),
            f"[red]{stage['failed']}[/]" if stage["failed"] else "0",
            f"{stage['seconds']:.1f}",
        )
    console.print(table)
