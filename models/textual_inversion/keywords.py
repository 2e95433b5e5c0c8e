"""Which words of a caption a pseudo token may stand for: LinCIR's keyword spans.

A span is a half-open range of characters. LinCIR takes maximal runs of nouns, proper nouns,
adjectives and determiners by spaCy's tagger. Where no tagger is available, `function_words` takes
maximal runs of words that are neither function words nor common verbs, from a small list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final, TypeAlias

Span: TypeAlias = tuple[int, int]
SpanExtractor: TypeAlias = Callable[[Iterable[str]], Iterator[list[Span]]]
"""Texts in, one list of spans per text out, in order."""

SPACY_MODEL: Final = "en_core_web_sm"
_KEYWORD_TAGS: Final = frozenset({"NOUN", "PROPN", "ADJ", "DET"})
_WORD: Final = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|[^\w\s]")

_FUNCTION_WORD_LIST: Final = """
    about above across after against along among and around as at because before behind below
    beneath beside besides between beyond but by despite down during except for from if in inside
    into like near nor of off on onto or out outside over past per since so than that then there
    through throughout till to toward towards under underneath until up upon via while with within
    without yet
    he her hers him his i it its me my our ours she their theirs them they us we who whom whose
    which what where when why how you your yours not no very too also just only
    is are was were be been being am has have had having do does did doing can could may might
    must shall should will would
    appear appears carry carries carrying come comes coming eat eats eating face faces facing fill
    filled fly flies flying get gets getting give gives go goes going hang hanging hangs hold
    holding holds keep keeps lay lays laying lie lies look looking looks lying make makes making
    play playing plays ride rides riding run running runs see seen sees show showing shown shows
    sit sits sitting sleep sleeping sleeps stand standing stands take taken takes taking use used
    using walk walking walks watch watching wear wearing wears
"""
_FUNCTION_WORDS: Final = frozenset(_FUNCTION_WORD_LIST.split())


def function_words(texts: Iterable[str]) -> Iterator[list[Span]]:
    """Maximal runs of words that are not function words or common verbs; needs no tagger."""
    for text in texts:
        words = [(m.start(), m.end()) for m in _WORD.finditer(text)]
        yield runs(words, [_is_content(text[start:end]) for start, end in words])


def spacy_tags(texts: Iterable[str]) -> Iterator[list[Span]]:
    """Maximal runs of NOUN, PROPN, ADJ and DET by spaCy's `en_core_web_sm`, as LinCIR."""
    for document in _tagger().pipe(texts, batch_size=256):
        words = [(token.idx, token.idx + len(token)) for token in document]
        yield runs(words, [token.pos_ in _KEYWORD_TAGS for token in document])


EXTRACTORS: Final[Mapping[str, SpanExtractor]] = MappingProxyType(
    {"spacy": spacy_tags, "function_words": function_words}
)


def extractor(name: str) -> SpanExtractor:
    """An extractor by name; an error that lists the known ones."""
    require_extractor(name)
    return EXTRACTORS[name]


def require_extractor(name: str) -> None:
    """Refuse an unknown extractor, or one whose packages are not installed; none is imported.

    Raises:
        ValueError: With the known ones, or with what to install.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"no keyword extractor {name!r}; there are {', '.join(EXTRACTORS)}")
    if name == "spacy" and not all(map(find_spec, ("spacy", SPACY_MODEL))):
        raise ValueError(
            f"keyword extractor 'spacy' needs spaCy and its model {SPACY_MODEL}: uv pip install "
            f"spacy, then python -m spacy download {SPACY_MODEL}; or use 'function_words', "
            "which needs neither"
        )


def runs(words: Sequence[Span], chosen: Sequence[bool]) -> list[Span]:
    """Join neighbouring chosen words into spans."""
    spans: list[Span] = []
    previous = False
    for (start, end), keep in zip(words, chosen, strict=True):
        if keep and previous:
            spans[-1] = (spans[-1][0], end)
        elif keep:
            spans.append((start, end))
        previous = keep
    return spans


def _is_content(word: str) -> bool:
    return word[0].isalnum() and word.lower() not in _FUNCTION_WORDS


@cache
def _tagger() -> Any:
    import spacy

    return spacy.load(SPACY_MODEL, exclude=["ner", "parser", "lemmatizer"])
