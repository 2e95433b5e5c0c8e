"""Which tokens of a checkpoint say yes and no, read from its tokenizer's file alone.

A tokenizer has up to six spellings of each word (small, capital and all capital letters, each with
and without a blank before it). All that are one token count, since which of them a model says
first is a matter of its chat template.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from models.checkpoints import UnusableCheckpoint
from models.protocols import Fingerprint

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
    from tokenizers import Tokenizer

    path = folder / TOKENIZER_FILE
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust tokenizer raises bare exceptions
        raise UnusableCheckpoint(f"{path} cannot be read: {error}") from error
    found = {}
    for word in (YES, NO):
        ids = set()
        for spelling in (word, word.capitalize(), word.upper()):
            for text in (spelling, f" {spelling}"):
                encoded = tokenizer.encode(text, add_special_tokens=False).ids
                if len(encoded) == 1 and is_word(tokenizer.decode(encoded), word):
                    ids.add(encoded[0])
        if not ids:
            raise UnusableCheckpoint(
                f"the tokenizer of {folder.name!r} has no single token for {word!r}, so its "
                "answer is not one position; take another checkpoint"
            )
        found[word] = tuple(sorted(ids))
    return AnswerTokens(found[YES], found[NO])


def is_word(token: str, word: str) -> bool:
    """Whether a token as text is a spelling of a word."""
    return token.strip().casefold() == word
