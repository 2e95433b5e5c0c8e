"""Systems of the papers' tables that do not run here: kept for their numbers, with the reason."""

from __future__ import annotations

from typing import Final

from models.retrieval.method_records import Method, Status


def published_only() -> list[Method]:
    """The rows of published systems that do not run here."""
    rows: tuple[tuple[str, str, str, str, Status, str], ...] = (
        (
            "palavra",
            "PALAVRA",
            "PALAVRA, ECCV 2022",
            "Pseudo tokens by set-encoder inversion.",
            "numbers_only",
            "its inversion network is licensed for research use only",
        ),
    )
    return [
        Method(
            name=name,
            title=title,
            group="trained",
            paper=paper,
            description=description,
            status=status,
            reason=reason,
        )
        for name, title, paper, description, status, reason in rows
    ]


METHODS: Final = tuple(published_only())
