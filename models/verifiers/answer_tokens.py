"""Which tokens of a checkpoint say yes and no, read from its tokenizer's file alone.

A tokenizer has up to six spellings of each word (small, capital and all capital letters, each with
and without a blank before it). All that are one token count, since which of them a model says
first is a matter of its chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from models.checkpoints import UnusableCheckpoint
from models.protocols import Fingerprint

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE: Final = "tokenizer.json"
YES, NO = "yes", "no"


@dataclass(frozen=True)
class AnswerTokens:
    """Ids of the tokens of either answer, in rising order."""

    yes: tuple[int, ...]
    no: tuple[int, ...]

    @property
    def fingerprint(self) -> Fingerprint:
        """The ids."""
        return {f"{word}_tokens": list(ids) for word, ids in asdict(self).items()}


def answer_tokens(folder: Path) -> AnswerTokens:
    """The tokens of both answers.

    Raises:
        UnusableCheckpoint: The file cannot be read, or a word is more than one token.
    """
    tokenizer, found = _tokenizer(folder), {}
    for word in (YES, NO):
        spellings = (word, word.capitalize(), word.upper())
        ids = {each for spelling in spellings for each in _single(tokenizer, spelling)}
        if not ids:
            raise UnusableCheckpoint(
                f"the tokenizer of {folder.name!r} has no single token for {word!r}, so its "
                "answer is not one position; take another checkpoint"
            )
        found[word] = tuple(sorted(ids))
    return AnswerTokens(found[YES], found[NO])


def mark_tokens(folder: Path, marks: Sequence[str]) -> list[tuple[int, ...]]:
    """The tokens of each mark of a grid, with and without a blank before it.

    Raises:
        UnusableCheckpoint: The file cannot be read, or a mark is more than one token.
    """
    tokenizer = _tokenizer(folder)
    found = [tuple(sorted(_single(tokenizer, mark))) for mark in marks]
    if lacking := [mark for mark, ids in zip(marks, found, strict=True) if not ids]:
        raise UnusableCheckpoint(
            f"the tokenizer of {folder.name!r} has no single token for {lacking[0]!r}, so it "
            "cannot name a picture of a grid; set verify.mode=pointwise, or take a checkpoint that "
            "reads numbers and letters (such as Qwen/Qwen3-VL-2B-Instruct)"
        )
    return found


def _tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    path = folder / TOKENIZER_FILE
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust tokenizer raises bare exceptions
        raise UnusableCheckpoint(f"{path} cannot be read: {error}") from error


def _single(tokenizer: Tokenizer, spelling: str) -> set[int]:
    """Ids of the tokens that say a word in this spelling, with and without a blank before it."""
    ids = set()
    for text in (spelling, f" {spelling}"):
        encoded = tokenizer.encode(text, add_special_tokens=False).ids
        if len(encoded) == 1 and tokenizer.decode(encoded).strip() == spelling:
            ids.add(encoded[0])
    return ids


def is_word(token: str, word: str) -> bool:
    """Whether a token as text is a spelling of a word."""
    return token.strip().casefold() == word
