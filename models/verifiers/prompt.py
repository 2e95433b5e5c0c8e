"""How a pair is put to a verifier in words: one form for engines in process and for servers.

The order is text, reference, candidate: all that belongs to the query comes first, so that the
candidates of a query share a prefix. A role without a prompt is left out of the chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from models.prompts.library import Prompt, load_prompt
from models.protocols import Fingerprint
from models.settings import Settings


class Picture(Enum):
    """The place of a picture in the user's message."""

    REFERENCE = "reference"
    CANDIDATE = "candidate"


Part: TypeAlias = str | Picture

_PLACEHOLDERS: Final = {"judge": (), "query": ("text",), "candidate": (), "question": ()}
"""Role -> placeholders of its prompt."""


class VerifierPrompts(Settings):
    """The prompt of each role, by name or by path; an empty one leaves the role out."""

    judge: str = "verify_judge"
    """Who answers, and how; the system's message."""
    query: str = "verify_query"
    """Before the reference; {text} is the modification text."""
    candidate: str = "verify_candidate"
    """Between the reference and the candidate."""
    question: str = "verify_question"
    """After the candidate."""

    def read(self) -> RoleTexts:
        """The prompts' texts.

        Raises:
            ValueError: A prompt is not there, or has other placeholders; the query has none.
        """
        if not self.query:
            raise ValueError("prompts.query is empty: it holds {text}, without which all fits")
        given = {role: getattr(self, role) for role in _PLACEHOLDERS}
        return RoleTexts(
            {
                role: load_prompt(name, _PLACEHOLDERS[role]) if name else None
                for role, name in given.items()
            }
        )


SHORT_PROMPTS: Final = VerifierPrompts(
    judge="", query="verify_query_short", candidate="", question=""
)
"""The modification text alone: what the embedded verifier was trained on."""

GRID_PROMPTS: Final = VerifierPrompts(
    judge="verify_list_judge", candidate="verify_list_candidate", question="verify_list_question"
)
"""A grid of candidates in the place of the one candidate."""

ASKED_PROMPTS: Final = VerifierPrompts(
    judge="verify_asked_judge", query="verify_asked_query", question=""
)
"""A question about the pair in the place of the modification text."""


@dataclass(frozen=True)
class RoleTexts:
    """Prompts by role; None where there is none."""

    prompts: dict[str, Prompt | None]

    @property
    def fingerprint(self) -> Fingerprint:
        """Hash of the text of each role that has one."""
        return {role: found.fingerprint for role, found in self.prompts.items() if found}

    @property
    def system(self) -> str:
        """The system's message; empty where there is none."""
        found = self.prompts["judge"]
        return found.render() if found else ""

    def user(self, text: str) -> Sequence[Part]:
        """The user's message about a modification text: words and places of pictures."""
        query, candidate, question = (self.prompts[n] for n in ("query", "candidate", "question"))
        assert query is not None
        parts: list[Part] = [query.render(text=text), Picture.REFERENCE]
        parts += [candidate.render()] if candidate else []
        parts += [Picture.CANDIDATE]
        parts += [question.render()] if question else []
        return parts
