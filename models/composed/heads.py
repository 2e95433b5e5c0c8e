"""Heads of attention on top of a backbone: their number is a setting, their width follows."""

from __future__ import annotations


def require_heads(heads: int, dim: int) -> None:
    """Refuse a number of heads that gives them no whole width.

    Raises:
        ValueError: The heads do not divide the backbone's width `dim`.
    """
    if dim % heads:
        raise ValueError(f"heads is {heads}, which does not divide the backbone's width {dim}")
