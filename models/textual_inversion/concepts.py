"""Concept vocabularies and phrases about concepts, as SEARLE uses them.

A vocabulary is a file of names: one a line, or the class list of Open Images (a CSV file with the
column DisplayName). Phrases are sentences in which a concept occurs; in a file they are a JSON
object, concept -> list of phrases.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

from models.protocols import SplicedText

Replace: TypeAlias = Literal["first", "all_as_code"]
"""Which occurrences of a concept leave a phrase: the first, which becomes the token; or, as
SEARLE's training does, all, of which the others become a bare `$`."""

OPEN_IMAGES_COLUMN: Final = "DisplayName"
_NEW_LINES: Final = re.compile(r"\s*\n+\s*")
PLACEHOLDER: Final = "$"


class ConceptError(ValueError):
    """A file holds no vocabulary, or no phrases."""


def read_concepts(path: Path | str) -> tuple[str, ...]:
    """The distinct names of a vocabulary, in their order.

    Raises:
        ConceptError: There is no such file, or it holds no name.
    """
    path = Path(path)
    text = _text(path, "vocabulary of concepts")
    if path.suffix.lower() == ".csv":
        rows = csv.DictReader(text.splitlines())
        if OPEN_IMAGES_COLUMN not in (rows.fieldnames or ()):
            raise ConceptError(
                f"{path} has no column {OPEN_IMAGES_COLUMN} (class list of Open Images); its "
                f"columns are {', '.join(rows.fieldnames or ('none',))}. Or give a text file with "
                "one name a line"
            )
        names: Iterable[str] = (row[OPEN_IMAGES_COLUMN] or "" for row in rows)
    else:
        names = text.splitlines()
    found = tuple(dict.fromkeys(name for each in names if (name := " ".join(each.split()))))
    if not found:
        raise ConceptError(f"{path} holds no concept; write one name a line")
    return found


def read_phrases(path: Path | str) -> dict[str, tuple[str, ...]]:
    """Phrases of concepts from a JSON file; see `usable`.

    Raises:
        ConceptError: There is no such file, or it holds something else.
    """
    path = Path(path)
    try:
        value = json.loads(_text(path, "file of phrases"))
    except json.JSONDecodeError as error:
        raise ConceptError(
            f"{path} is not JSON ({error}). SEARLE's concept_to_phrases.pkl is converted by "
            "`python -m storage.exchange.plain_pickle IN OUT`"
        ) from error
    if not isinstance(value, dict) or not all(
        isinstance(own, list) and all(isinstance(each, str) for each in own)
        for own in value.values()
    ):
        raise ConceptError(f"{path} must be a JSON object: concept -> list of phrases")
    return {" ".join(name.split()): usable(name, own) for name, own in value.items()}


def usable(concept: str, phrases: Sequence[str]) -> tuple[str, ...]:
    """Distinct phrases in which the concept occurs as it is written, in their order.

    Line breaks become ". ". SEARLE leaves out a concept whose phrases do not name it.
    """
    cleaned = (_NEW_LINES.sub(". ", phrase.strip()) for phrase in phrases)
    return tuple(dict.fromkeys(phrase for phrase in cleaned if _occurrence(concept, phrase)))


def spliced_phrase(phrase: str, concept: str, replace: Replace = "first") -> SplicedText:
    """A phrase with the pseudo token in place of a concept.

    Raises:
        ValueError: The concept does not occur in it.
    """
    match = _occurrence(concept, phrase)
    if match is None:
        raise ValueError(f"{concept!r} does not occur in {phrase!r}")
    before, after = phrase[: match.start()], phrase[match.end() :]
    if replace == "all_as_code":
        after = _pattern(concept).sub(f" {PLACEHOLDER} ", after)
    return SplicedText(before.strip(), after.strip())


def _occurrence(concept: str, phrase: str) -> re.Match[str] | None:
    return _pattern(concept).search(phrase)


def _pattern(concept: str) -> re.Pattern[str]:
    words = r"\s+".join(map(re.escape, concept.split()))
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConceptError(f"the {what} {path} does not exist") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise ConceptError(f"{path} is not a text file in UTF-8: {error}") from error
