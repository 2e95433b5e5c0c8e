"""From captions to training rows: cleaned, keywords masked, tokenised once.

LinCIR trains on captions alone. Each caption is kept whole (for the feature that the network
reads) and with its keywords replaced by one and the same pseudo token (for the feature that it
must bring about).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from models.encoders.text_tokens import TextTokens, TokenRow
from models.textual_inversion.keywords import Span, SpanExtractor
from models.textual_inversion.settings import Masking

MASKINGS: Final[tuple[str, ...]] = get_args(Masking)

_FALLBACK: Final = ("a photo of", "")
_WORD: Final = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One caption, whole and masked."""

    whole: TokenRow
    masked: TokenRow


def clean_caption(text: str | None, *, lower: bool = True) -> str:
    """LinCIR's cleaning: lower case, `<PERSON>` spelled out, no `$`, no blanks at the ends.

    LinCIR lowers for CLIP, whose tokenizer does so too; `lower` is off for one that keeps case.
    """
    text = (text or "").replace("<PERSON>", "person").replace("$", "")
    return " ".join((text.lower() if lower else text).split())


def training_rows(
    captions: Iterable[str | None],
    tokens: TextTokens,
    spans_of: SpanExtractor,
    masking: Masking = "offsets",
) -> list[TrainingRow]:
    """Clean, cut, mask and tokenise captions; empty ones are left out.

    Args:
        captions: Raw captions.
        tokens: The text tower's tokenizer.
        spans_of: Finds keywords; see `models.textual_inversion.keywords`.
        masking: `offsets` masks exactly the spans. `substring` reproduces LinCIR's code, which
            replaces every occurrence of a keyword's text, inside longer words too.
    """
    if masking not in MASKINGS:
        raise ValueError(f"masking is {masking!r}; one of {', '.join(MASKINGS)}")
    lower = not tokens.keeps_case
    cleaned = (clean_caption(caption, lower=lower) for caption in captions)
    texts = [text for each in cleaned if (text := _fitting(each, tokens))]
    cut = _parts_by_offset if masking == "offsets" else _parts_by_substring
    rows = []
    for text, spans in zip(texts, spans_of(texts), strict=True):
        masked = tokens.parts_row(cut(text, merge(spans) or [_some_word(text)]))
        # A cut text can grow when it is encoded again, and push its last hole out.
        if not masked.positions:
            masked = tokens.parts_row(_FALLBACK)
        rows.append(TrainingRow(tokens.row(text), masked))
    return rows


def merge(spans: Sequence[Span]) -> list[Span]:
    """Sorted spans, overlapping and touching ones joined, empty ones dropped."""
    merged: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _fitting(text: str, tokens: TextTokens) -> str:
    """The text, or as much of it as fits the context with its special tokens."""
    ids = tokens.ids(text)
    return text if len(ids) <= tokens.room else tokens.text(ids[: tokens.room])


def _parts_by_offset(text: str, spans: Sequence[Span]) -> list[str]:
    starts = [0, *(end for _, end in spans)]
    ends = [*(start for start, _ in spans), len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def _parts_by_substring(text: str, spans: Sequence[Span]) -> list[str]:
    # `$` cannot occur in a cleaned caption, so it marks the holes.
    marked = text
    for start, end in spans:
        marked = marked.replace(text[start:end], "$")
    return marked.split("$")


def _some_word(text: str) -> Span:
    """One word of the text, chosen by the text itself so that it never depends on the order."""
    words = [match.span() for match in _WORD.finditer(text)]
    digest = hashlib.sha256(text.encode()).digest()
    return words[int.from_bytes(digest[:8], "big") % len(words)]
