"""Systems of the papers' tables that do not run here: kept for their numbers, with the reason."""

from __future__ import annotations

from typing import Final

from models.retrieval.method_records import Method, Status


def published_only() -> list[Method]:
    """The rows of published systems that do not run here."""
    fusion = "a supervised fusion model with its own training; only its published numbers are kept"
    rows: tuple[tuple[str, str, str, str, Status, str], ...] = (
        (
            "palavra",
            "PALAVRA",
            "PALAVRA, ECCV 2022",
            "Pseudo tokens by set-encoder inversion.",
            "numbers_only",
            "its inversion network is licensed for research use only",
        ),
        (
            "blip4cir-bi",
            "BLIP4CIR+Bi",
            "BLIP4CIR+Bi, WACV 2024",
            "BLIP with reversed queries as extra training.",
            "numbers_only",
            fusion,
        ),
        (
            "candidate-filter",
            "Candidate re-ranking (filter)",
            "Candidate Set Re-ranking, TMLR 2024",
            "First stage: BLIP fusion.",
            "numbers_only",
            fusion,
        ),
        (
            "candidate-rerank",
            "Candidate re-ranking",
            "Candidate Set Re-ranking, TMLR 2024",
            "Second stage: a cross-encoder reads query and candidate.",
            "numbers_only",
            fusion,
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
