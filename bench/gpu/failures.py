"""Errors as lines of the table, and the memory they held given back."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator

import torch

from bench.gpu.records import Gap, Row


def failure(part: str, what: str, error: Exception) -> Gap:
    """The line of an error; a memory that is too small is not a fault.

    Where the error arose goes to standard error: the part's log.
    """
    traceback.print_exception(error)
    # A compiler's first line names the compiler, its second one the reason.
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, torch.OutOfMemoryError):
        return Gap(part, what, "left out", f"it does not fit in the card's memory ({said[:200]})")
    return Gap(part, what, "failed", said[:300])


def attempted(part: str, what: str, measure: Callable[[], Row]) -> Iterator[Row | Gap]:
    """The row that `measure` returns, or the line of its error; others may follow either."""
    found: Row | Gap
    try:
        found = measure()
    except Exception as error:  # whatever it is, the others go on
        found = failure(part, what, error)
    release()
    yield found


def release() -> None:
    """Give memory back that nothing uses; an error's frames hold some until it is forgotten."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
