"""Pairs of prompt and answer that a rewriter is tuned on, from captions and texts.

A prompt is rendered exactly as it will be when modification texts are written, and an answer must
keep the same contract (`models.instructcir.modification_texts`). Other answers are left out and
counted, never mended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from models.generators.answer_lines import stripped
from models.instructcir.modification_texts import (
    LABEL,
    CaptionPair,
    WritingSettings,
    keep_contract,
    to_request,
)
from models.instructcir.rewriter_settings import Example
from models.prompts.library import Prompt


@dataclass(frozen=True)
class ExampleSource:
    """The usable pairs of one source.

    Attributes:
        name: of the source, for the adapter's card.
        pairs: in the order of the source.
        left_out: kind of fault -> rows that are not among the pairs because of it.
        benchmarks: benchmarks whose annotators wrote some of the answers.
    """

    name: str
    pairs: tuple[Example, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()


def captioned_pairs(
    name: str, rows: Iterable[tuple[str | None, str | None, str | None]], prompt: Prompt
) -> ExampleSource:
    """Pairs of (caption A, caption B, text) rows whose texts keep the contract."""
    pairs, left_out = [], Counter[str]()
    for before, after, text in rows:
        if not before or not after or not text:
            left_out["no text"] += 1
            continue
        first = next(iter(text.strip().splitlines()), "")
        answer, reason = keep_contract(stripped(first, LABEL))
        if reason:
            left_out[reason.partition(":")[0]] += 1
            continue
        request = to_request(CaptionPair("", before, after), prompt, WritingSettings(), 1)
        pairs.append(Example(request.prompt, answer))
    return ExampleSource(name, tuple(pairs), dict(left_out))
