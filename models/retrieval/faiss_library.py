"""The library of approximate indexes, an extra that may not be installed."""

from __future__ import annotations

import importlib
from typing import Any, Final

LACKING: Final = (
    "approximate search needs faiss: install requirements/lock-approximate.txt next to "
    "requirements/lock.txt (`make approximate`), or set search.approximate_above=0"
)


def require_faiss() -> Any:
    """The library.

    Raises:
        ValueError: it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise ValueError(LACKING) from error
