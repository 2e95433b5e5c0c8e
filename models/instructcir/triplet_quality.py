"""Measures of generated triplets that a person should know before training on them.

Counts only; nothing is judged good or bad here except by `attention`, in words, by thresholds that
are named below.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from models.spelling import counted
from models.triplets import TripletRow

EXAMPLES: Final = 3
"""Raw answers kept for each kind of failure."""
TOP: Final = 12
"""Most frequent texts, openings and words that are listed."""
OPENING_WORDS: Final = 2

MANY_FAILED: Final = 0.05
MANY_RETRIED: Final = 0.2
MANY_REPEATED: Final = 0.1
FREQUENT_OPENING: Final = 0.4
MANY_COPIED: Final = 0.01
COPIED_SHARE: Final = 0.9
SMALL_VOCABULARY: Final = 200
UNLIKE: Final = 0.15
"""Share of common words below which two captions describe two unlike pictures."""
MIX_OFF: Final = 0.05

_WORD: Final = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Example:
    """A failed pair to look at."""

    triplet_id: str
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class Failure:
    """One kind of failure: status and the common part of the reasons."""

    status: str
    kind: str
    count: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class TripletQuality:
    """Measures of a set of triplets.

    Shares are fractions. Words are compared in lower case, without punctuation.

    Attributes:
        rows: All pairs.
        by_status: Status -> pairs, most frequent first.
        failures: Kinds of failure, most frequent first.
        by_source: Collection -> status -> pairs.
        by_class: Collection and class -> pairs.
        images: Distinct images in ok triplets.
        lengths: Words in a text -> texts.
        attempts: Answers asked for -> ok texts.
        distinct_texts: Different texts, in whatever case.
        repeated: Share of ok texts that another triplet has too.
        frequent_texts: The most frequent texts that occur more than once.
        from_target: Share of the texts' words that caption B has, and only caption B.
        from_reference: The same of caption A.
        from_both: Share of the words that both captions have.
        copies: Texts all of whose words are those of caption B, in its order and without a gap.
        near_copies: Texts with at least 0.9 of their words from caption B; copies are among them.
        captions_alike: Mean share of the words of both captions that are in both (Jaccard); small
            where pairs are too unlike to tell a change.
        equal_captions: Ok triplets of two images with the same caption: nothing tells them apart.
        vocabulary: Different words in the texts.
        frequent_words: The most frequent words.
        openings: The most frequent first two words.
    """

    rows: int
    by_status: Mapping[str, int]
    failures: tuple[Failure, ...]
    by_source: Mapping[str, Mapping[str, int]]
    by_class: Mapping[str, int]
    images: int
    lengths: Mapping[int, int]
    attempts: Mapping[int, int]
    distinct_texts: int
    repeated: float
    frequent_texts: tuple[tuple[str, int], ...]
    from_target: float
    from_reference: float
    from_both: float
    copies: int
    near_copies: int
    equal_captions: int
    captions_alike: float
    vocabulary: int
    frequent_words: tuple[tuple[str, int], ...]
    openings: tuple[tuple[str, int], ...]

    @property
    def ok(self) -> int:
        """Triplets that can be trained on."""
        return self.by_status.get("ok", 0)


class QualityCounter:
    """Measures triplets as they stream by; only counts and texts are kept."""

    def __init__(self) -> None:
        self._sources: dict[str, Counter[str]] = defaultdict(Counter)
        self._classes: Counter[str] = Counter()
        self._failures: dict[tuple[str, str], int] = Counter()
        self._examples: dict[tuple[str, str], list[Example]] = defaultdict(list)
        self._images: set[str] = set()
        self._lengths: Counter[int] = Counter()
        self._attempts: Counter[int] = Counter()
        self._texts: Counter[str] = Counter()
        self._words: Counter[str] = Counter()
        self._openings: Counter[str] = Counter()
        self._origins: Counter[str] = Counter()
        self._alike = 0.0

    def add(self, row: TripletRow) -> None:
        """Count one pair."""
        self._sources[row.source][row.status] += 1
        self._classes[f"{row.source}/{row.meta_class}" if row.meta_class else row.source] += 1
        if row.status != "ok":
            self._add_failure(row)
            return
        text, words = str(row.text), words_of(str(row.text))
        self._images |= {row.reference, row.target}
        self._lengths[len(text.split())] += 1
        self._attempts[row.attempts] += 1
        self._texts[" ".join(text.lower().split())] += 1
        self._words.update(words)
        self._openings[" ".join(words[:OPENING_WORDS])] += 1
        self._add_origins(words, row.reference_caption or "", row.target_caption or "")

    def _add_failure(self, row: TripletRow) -> None:
        kind = (row.status, row.reason.partition(":")[0])
        self._failures[kind] += 1
        if len(self._examples[kind]) < EXAMPLES:
            self._examples[kind].append(Example(row.triplet_id, row.reason, row.raw or ""))

    def _add_origins(self, words: Sequence[str], reference: str, target: str) -> None:
        a, b = words_of(reference), words_of(target)
        in_a, in_b = set(a), set(b)
        for word in words:
            self._origins[f"{word in in_a} {word in in_b}"] += 1
        shared = sum(word in in_b for word in words)
        self._origins["copies"] += bool(words) and f" {' '.join(words)} " in f" {' '.join(b)} "
        self._origins["near copies"] += bool(words) and shared >= COPIED_SHARE * len(words)
        self._origins["equal captions"] += a == b
        self._alike += _share(len(in_a & in_b), len(in_a | in_b))

    def quality(self) -> TripletQuality:
        """The counts so far."""
        statuses: Counter[str] = Counter()
        for counts in self._sources.values():
            statuses.update(counts)
        written = sum(self._texts.values())
        words = sum(self._words.values())
        repeated = sum(n for n in self._texts.values() if n > 1)
        failures = sorted(self._failures.items(), key=lambda item: (-item[1], item[0]))
        return TripletQuality(
            rows=sum(statuses.values()),
            by_status=dict(_frequent(statuses)),
            failures=tuple(
                Failure(*kind, count, tuple(self._examples[kind])) for kind, count in failures
            ),
            by_source={
                name: dict(_frequent(self._sources[name])) for name in sorted(self._sources)
            },
            by_class=dict(_frequent(self._classes)),
            images=len(self._images),
            lengths=dict(sorted(self._lengths.items())),
            attempts=dict(sorted(self._attempts.items())),
            distinct_texts=len(self._texts),
            repeated=_share(repeated, written),
            frequent_texts=tuple(t for t in _frequent(self._texts)[:TOP] if t[1] > 1),
            from_target=_share(self._origins["False True"], words),
            from_reference=_share(self._origins["True False"], words),
            from_both=_share(self._origins["True True"], words),
            copies=self._origins["copies"],
            near_copies=self._origins["near copies"],
            equal_captions=self._origins["equal captions"],
            captions_alike=self._alike / written if written else 0.0,
            vocabulary=len(self._words),
            frequent_words=tuple(_frequent(self._words)[:TOP]),
            openings=tuple(_frequent(self._openings)[:TOP]),
        )


def measure(rows: Iterable[TripletRow]) -> TripletQuality:
    """Measure a set of triplets."""
    counter = QualityCounter()
    for row in rows:
        counter.add(row)
    return counter.quality()


def attention(quality: TripletQuality, mix: Mapping[str, float]) -> list[str]:
    """Points to look at before training, in words; empty where there are none.

    Args:
        quality: The measures.
        mix: Collection -> weight that was asked for.
    """
    if not quality.ok:
        pairs = counted(quality.rows, "pair")
        return [f"None of the {pairs} has a text: there is nothing to train on."]
    notes = [
        _failed_note(quality),
        *_text_notes(quality),
        *_mix_notes(quality, mix),
    ]
    return [note for note in notes if note]


def _failed_note(quality: TripletQuality) -> str:
    failed = quality.rows - quality.ok
    if failed <= MANY_FAILED * quality.rows:
        return ""
    main = quality.failures[0]
    return (
        f"{_percent(failed, quality.rows)} of the pairs have no text, mostly "
        f"{main.status} ({main.kind}): {main.count:,}."
    )


def _text_notes(quality: TripletQuality) -> list[str]:
    ok = quality.ok
    retried = sum(n for attempts, n in quality.attempts.items() if attempts > 1)
    opening, opened = quality.openings[0]
    notes = {
        f"{_percent(retried, ok)} of the texts took more than one attempt: the prompt and the "
        "model do not fit well.": retried > MANY_RETRIED * ok,
        f"{quality.repeated:.1%} of the texts occur more than once; the most frequent is "
        f"\u201c{quality.frequent_texts[0][0] if quality.frequent_texts else ''}\u201d. Triplets "
        "with one text and different targets pull the network both ways.": quality.repeated
        > MANY_REPEATED,
        f"{_percent(opened, ok)} of the texts begin with \u201c{opening}\u201d.": opened
        > FREQUENT_OPENING * ok,
        f"{_percent(quality.copies, ok)} of the texts are a piece of caption B word for word, and "
        "tell no change.": quality.copies > MANY_COPIED * ok,
        f"The texts use {counted(quality.vocabulary, 'different word')} only.": quality.vocabulary
        < SMALL_VOCABULARY,
        f"The captions of a pair have {quality.captions_alike:.1%} of their words in common: the "
        "pairs are unlike, and texts describe both pictures. similarity=0.5,1 draws the more "
        "similar half.": quality.captions_alike < UNLIKE,
        f"{_percent(quality.equal_captions, ok)} of the pairs have the same caption twice: their "
        "texts tell a difference that nobody saw.": quality.equal_captions > MANY_COPIED * ok,
    }
    return [note for note, applies in notes.items() if applies]


def _mix_notes(quality: TripletQuality, mix: Mapping[str, float]) -> list[str]:
    notes = []
    total = sum(mix.values())
    for source, weight in sorted(mix.items()):
        got = sum(quality.by_source.get(source, {}).values()) / quality.rows
        if abs(got - weight / total) > MIX_OFF:
            notes.append(
                f"{source} gives {got:.1%} of the pairs, not the {weight / total:.1%} asked for; "
                "a collection that runs out of pairs leaves its share to the others."
            )
    return notes


def words_of(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def _frequent(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _percent(part: int, whole: int) -> str:
    return f"{_share(part, whole):.1%}"
