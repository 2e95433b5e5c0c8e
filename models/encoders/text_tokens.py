"""Texts and texts with pseudo tokens as rows of token ids, for each tokenizer of open_clip's.

CLIP's byte pairs know no blanks: parts are tokenised one by one. The pieces of a Hugging Face
tokenizer (SigLIP2, MetaCLIP2) begin with the blank in front of them, and cleaning strips the ends
of a text: parts are cleaned one by one, and tokenised together with a word in each hole.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from models.protocols import SplicedText

_WORD: Final = "thing"
"""Stands in the holes while a text is tokenised, and shows what a tokenizer puts around texts."""

_CLOSING: Final = frozenset(".,;:!?)]}'\"/-\N{RIGHT SINGLE QUOTATION MARK}")
"""What stands directly behind a word."""
_OPENING: Final = frozenset("([{'\"/-")
"""What stands directly before one."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One tokenised text, from start-of-text to end-of-text, without padding.

    Attributes:
        ids: Token ids; the value at a pseudo-token position is never looked at.
        positions: Where pseudo tokens go, as indices into `ids`.
        truncated: Whether the text was longer than the tower's context.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...] = ()
    truncated: bool = False


class TextTokens:
    """Turns texts and spliced texts into `TokenRow`s, by CLIP's byte-pair tokenizer.

    Special tokens written out in a text ("<end_of_text>") are dropped: a user's text is text.

    Attributes:
        start: Ids before a text, often one.
        end: Id behind it.
        pad: Id behind the end, up to the context length.
        context_length: Tokens that a row may have.
    """

    def __init__(self, tokenizer: SimpleTokenizer, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self.start: tuple[int, ...] = (tokenizer.sot_token_id,)
        self.end: int = tokenizer.eot_token_id
        self.pad = 0
        self.context_length = context_length

    @property
    def room(self) -> int:
        """Tokens that a text itself may have."""
        return self.context_length - len(self.start) - 1

    @property
    def keeps_case(self) -> bool:
        """Whether capitals are other tokens than small letters."""
        return self.ids(string.ascii_uppercase) != self.ids(string.ascii_lowercase)

    def ids(self, text: str) -> list[int]:
        """Token ids of the bare text."""
        return [i for i in self._tokenizer.encode(text) if i not in self._special]

    def bodies(self, parts: Sequence[str]) -> list[list[int]]:
        """Token ids of each part of a text that has a pseudo token between each two parts."""
        return [self.ids(part) for part in parts]

    def text(self, ids: Sequence[int]) -> str:
        """The text that ids stand for, as the tokenizer spells it."""
        return str(self._tokenizer.decode(list(ids))).strip()

    def row(self, text: str) -> TokenRow:
        """Tokenise a text; an overlong one is cut and keeps its end-of-text token."""
        body = self.ids(text)
        return self._framed(body, truncated=len(body) > self.room)

    def spliced_row(self, text: SplicedText) -> TokenRow:
        """Tokenise a text with one pseudo token.

        An overlong text loses the end of `after` first, then the end of `before`; the pseudo
        token always survives, for without it the row would be another query.
        """
        before, after = self.bodies([text.before, text.after])
        room = self.room - 1
        truncated = len(before) + len(after) > room
        before = before[:room]
        after = after[: room - len(before)]
        return self._framed([*before, self.end, *after], (len(before),), truncated)

    def parts_row(self, parts: Sequence[str]) -> TokenRow:
        """Tokenise text parts with a pseudo token between each two of them.

        Used for masked training captions. What does not fit is cut, pseudo tokens included, so
        the result may have none; the caller decides what to do then.
        """
        body: list[int] = []
        holes: list[int] = []
        for number, part in enumerate(self.bodies(parts)):
            if number:
                holes.append(len(body))
                body.append(self.end)
            body.extend(part)
        kept = [hole for hole in holes if hole < self.room]
        return self._framed(body, kept, truncated=len(body) > self.room)

    def _framed(
        self, body: Sequence[int], holes: Sequence[int] = (), truncated: bool = False
    ) -> TokenRow:
        ids = (*self.start, *body[: self.room], self.end)
        return TokenRow(ids, tuple(len(self.start) + hole for hole in holes), truncated)


class HubTokens(TextTokens):
    """The same by a Hugging Face tokenizer that knows where its pieces begin."""

    def __init__(self, tokenizer: HFTokenizer, context_length: int) -> None:
        """Take over a tokenizer that `why_no_tokens` accepts."""
        self._hub: Any = tokenizer.tokenizer
        self._clean = tokenizer.clean_fn
        self._special = frozenset(self._hub.all_special_ids) - {self._hub.unk_token_id}
        self.start, self.end, self.pad = _frame(tokenizer, context_length)
        self.context_length = context_length

    def ids(self, text: str) -> list[int]:
        """Token ids of the bare text."""
        return self.bodies([text])[0]

    def bodies(self, parts: Sequence[str]) -> list[list[int]]:
        """Token ids of each part of a text that has a pseudo token between each two parts.

        A hole is a word of its own: the blanks that cleaning strips beside it are put back.
        """
        text: str = self._clean(parts[0])
        holes: list[tuple[int, int]] = []
        for left, right in pairwise(parts):
            part = self._clean(right)
            apart = text and (left[-1:].isspace() or text[-1] not in _OPENING)
            word = f" {_WORD}" if apart else _WORD
            holes.append((len(text), len(text) + len(word)))
            apart = part and (right[:1].isspace() or part[0] not in _CLOSING)
            text += f"{word} {part}" if apart else word + part
        found = self._hub(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        made: list[list[int]] = [[] for _ in parts]
        place = 0
        for token, (begin, _) in zip(found["input_ids"], found["offset_mapping"], strict=True):
            while place < len(holes) and begin >= holes[place][1]:
                place += 1
            in_hole = place < len(holes) and begin >= holes[place][0]
            if not in_hole and token not in self._special:
                made[place].append(token)
        return made

    def text(self, ids: Sequence[int]) -> str:
        """The text that ids stand for, as the tokenizer spells it."""
        return str(self._hub.decode(list(ids), skip_special_tokens=True)).strip()


def tokens_of(tokenizer: object, context_length: int) -> TextTokens:
    """The rows of a tokenizer that `why_no_tokens` accepts."""
    if isinstance(tokenizer, HFTokenizer):
        return HubTokens(tokenizer, context_length)
    assert isinstance(tokenizer, SimpleTokenizer)
    return TextTokens(tokenizer, context_length)


def why_no_tokens(tokenizer: object, context_length: int) -> str:
    """Why no rows can be made by a tokenizer, in words; empty where they can."""
    name = type(tokenizer).__name__
    if isinstance(tokenizer, SimpleTokenizer):
        return f"its tokenizer ({name}) drops words" if tokenizer.reduction_fn else ""
    if not isinstance(tokenizer, HFTokenizer):
        return f"its tokenizer ({name}) is neither CLIP's byte-pair tokenizer nor Hugging Face's"
    if tokenizer.tokenizer_mode or not getattr(tokenizer.tokenizer, "is_fast", False):
        return f"its tokenizer ({name}) does not say where its pieces begin"
    try:
        _frame(tokenizer, context_length)
    except ValueError as error:
        return f"its tokenizer ({name}) {error}"
    return ""


def _frame(tokenizer: HFTokenizer, context_length: int) -> tuple[tuple[int, ...], int, int]:
    """What the library puts around texts: ids before, the id behind, and padding.

    Raises:
        ValueError: It is something else; the message says what.
    """
    word = tokenizer.tokenizer(tokenizer.clean_fn(_WORD), add_special_tokens=False)["input_ids"]
    short, full = tokenizer([_WORD, f"{_WORD} " * context_length], context_length).tolist()
    begins = (i for i in range(len(short)) if short[i : i + len(word)] == word)
    begin = next(begins, len(short))
    behind = short[begin + len(word) :]
    if not word or len(set(behind[1:])) != 1:
        raise ValueError("puts other tokens around texts than a start, an end and padding behind")
    if full[-1] != behind[0]:
        raise ValueError("does not end an overlong text as a short one")
    return tuple(short[:begin]), behind[0], behind[-1]
