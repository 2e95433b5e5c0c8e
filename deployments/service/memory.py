"""Memory of large pictures, given back."""

from __future__ import annotations

import ctypes
from typing import Final

_MMAP_THRESHOLD: Final = -3
"""`M_MMAP_THRESHOLD` of glibc's malloc.h."""
LARGE: Final = 8 * 2**20
"""Bytes of a block that is mapped on its own; Pillow's have 16 MiB, a search's arrays less."""


def give_back_large_blocks() -> None:
    """Let the system have large blocks back as soon as they are freed.

    glibc raises its threshold with the blocks that it sees, and then keeps freed ones for the
    thread that had them: with dozens of threads, gigabytes. Other libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGE)
