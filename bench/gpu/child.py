"""One part in its own process: what it finds goes to standard output, a JSON message a line.

A process of its own gives each part an empty card, a crash or a full memory ends that part alone,
and a compiler that takes too long can be stopped.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TextIO

from bench.gpu.bare_pydantic import install_where_missing
from bench.gpu.plan import PARTS, Part
from bench.gpu.records import Gap, Line, to_message

if TYPE_CHECKING:
    from bench.gpu.case import Case

_MODULES: Final = {
    "limits": "limits",
    "captions": "captions",
    "edits": "edits",
    "search": "search",
    "lincir": "lincir",
    "instructcir": "instructcir",
}
"""Part -> module whose `measure(case)` yields its lines; the others are backbones of `towers`."""


def measure_part(name: str, case: Case) -> Iterator[Line | dict[str, float]]:
    """Lines of a part; what it cannot do is a line too."""
    part = next(each for each in PARTS if each.name == name)
    if reason := _too_large(part, case):
        yield Gap(name, part.what, "left out", reason)
        return
    from bench.gpu.failures import failure

    try:
        yield from _measure_of(name)(case)
    except Exception as error:  # whatever it is, the other parts go on
        yield failure(part.name, part.what, error)


def _measure_of(name: str) -> Callable[[Case], Iterator[Line | dict[str, float]]]:
    install_where_missing()
    if name in _MODULES:
        found = importlib.import_module(f"bench.gpu.{_MODULES[name]}").measure
        return found  # type: ignore[no-any-return]
    from bench.gpu import towers

    return lambda case: towers.measure(name, case)


def _too_large(part: Part, case: Case) -> str:
    from bench.gpu.timing import Clock

    free = Clock(case.device).free()
    if case.small or free is None or free >= part.memory:
        return ""
    return f"it needs {part.memory / 2**30:.0f} GiB of the card, {free / 2**30:.1f} GiB are free"


def main(name: str, device: str, small: bool, until: float) -> None:
    """Measure a part, and send its lines."""
    sink = _own_standard_output()
    import torch

    from bench.gpu.case import Case

    where = torch.device(device)
    if where.type == "cuda":
        where = torch.device("cuda", where.index or 0)
        torch.cuda.set_device(where)
    for found in measure_part(name, Case(where, small, until)):
        print(json.dumps(to_message(found)), file=sink, flush=True)


def _own_standard_output() -> TextIO:
    """Standard output for messages alone: whatever libraries print goes to standard error."""
    sink = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return sink
