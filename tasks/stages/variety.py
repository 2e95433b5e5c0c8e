"""The guard against one text for all questions, over a shard and, if it is small, its table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import polars as pl

from models.generators.repetition import LEAST, Answered, check_variety
from storage.tables.schemas import OK
from storage.tables.table import Table

EARLY: Final = 16
"""Replies after which a shard is looked at for the first time: no more is paid for non-answers."""
_EARLY_LEAST: Final = 8
_FEW: Final = 64


def check_early(answers: Sequence[Answered], *, may_copy: bool = False) -> None:
    """Refuse the first answers of a shard if nearly all say the same.

    Raises:
        RepeatedAnswer: see `check_variety`.
    """
    check_variety(answers, least=_EARLY_LEAST, may_copy=may_copy)


def check_shard(
    answers: Sequence[Answered],
    table: Table,
    columns: tuple[str, str, str],
    render: Callable[[str, str], str],
    *,
    may_copy: bool = False,
    nothing: str = "",
) -> None:
    """Refuse a shard's answers if most of them, and of few others before, say the same.

    Args:
        answers: Of the shard.
        table: The table that they are for.
        columns: Its columns of the question's two parts, and of the answer.
        render: The prompt of two such parts.
        may_copy: Whether an answer may repeat a part of its question.
        nothing: The answer that many questions may share.

    Raises:
        RepeatedAnswer: see `check_variety`.
    """
    known = list(answers)
    if 0 < len(known) < _FEW:
        rows = table.read([*columns, "status"]).filter(pl.col("status") == OK)
        for first, second, answer in rows.select(columns).iter_rows():
            if answer != nothing:
                known.append(Answered((first, second), render(first, second), answer))
    check_variety(known, least=LEAST, may_copy=may_copy)
