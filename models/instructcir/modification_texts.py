"""The text step of InstructCIR: from two captions to a modification text (section III, Table I).

The paper prints the prompt and four answers of eleven and twelve words. The contract of an
answer is read from both: one line of at most twelve plain words. The model is asked again, a few
times and with another seed, where an answer breaks it; then the pair has no text and says why.
Neither a caption nor an empty text ever takes its place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from models.generators.answer_reader import Question, read_line
from models.prompts.library import Prompt
from models.protocols import (
    EngineUnavailable,
    Fingerprint,
    TextGenerator,
    TextReply,
    TextRequest,
    require_engine,
)

CONTRACT_VERSION: Final = 1
"""Raised when the same captions are put differently; the reading has a version of its own."""

PLACEHOLDERS: Final = ("caption_a", "caption_b")
MAX_WORDS: Final = 12

CUT_OFF: Final = "cut off: the answer ran into the token limit"

REJECTED: Final = "rejected"
"""Status of a pair with no answer that keeps the contract."""

LABEL: Final = "Difference:"
_PROMPT_LABELS: Final = ("caption A:", "caption B:")
_FOREIGN: Final = re.compile("[^A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f0-9 ,.'-]")
_LETTER: Final = re.compile("[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]")


@dataclass(frozen=True, slots=True)
class CaptionPair:
    """The captions that one modification text leads between.

    Attributes:
        key: The caller's name for the pair; its random stream hangs on it.
        reference_caption: Caption A.
        target_caption: Caption B.
    """

    key: str
    reference_caption: str
    target_caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WritingSettings:
    """How modification texts are asked for.

    Attributes:
        temperature: Of the first attempt; 0 is greedy. Sampled texts vary more in wording.
        retry_temperature: Of the further attempts, where that is more: a model that answers
            greedily would say the same again.
        attempts: Answers asked for before a pair is given up.
        max_new_tokens: Upper bound on generated tokens.
        top_p: Nucleus mass when sampling.
        seed: Seed of the whole table; every pair and attempt has its own stream.
        stop: Strings that end a reply.
    """

    temperature: float = 0.0
    retry_temperature: float = 0.7
    attempts: int = 3
    max_new_tokens: int = 64
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ("\n\n",)

    def __post_init__(self) -> None:
        """Refuse values that would ask the same question twice, or none."""
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        if self.attempts > 1 and self.retry_temperature <= 0:
            raise ValueError(
                f"retry_temperature must be positive, not {self.retry_temperature}: a greedy model "
                "gives the same answer again; or set attempts=1"
            )

    @property
    def fingerprint(self) -> Fingerprint:
        """Every field, and the version of the contract."""
        return {
            "contract_version": CONTRACT_VERSION,
            "max_words": MAX_WORDS,
            "temperature": self.temperature,
            "retry_temperature": self.retry_temperature,
            "attempts": self.attempts,
            "max_new_tokens": self.max_new_tokens,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": list(self.stop),
        }


@dataclass(frozen=True, slots=True)
class WrittenText:
    """The outcome of one pair of captions.

    Attributes:
        key: The pair's key.
        text: The modification text; empty unless the status is `ok`.
        status: `ok`, `rejected`, or the engine's own status of its last reply.
        reason: Why, in words; empty when the status is `ok`. The kind of fault stands
            before the first colon.
        raw: The last reply, as it came.
        attempts: Answers asked for.
        answered_by: The model that a server's reply names; empty for other engines.
    """

    key: str
    text: str
    status: str
    reason: str
    raw: str
    attempts: int
    answered_by: str = ""


def read_answer(reply: TextReply, template: str = "") -> tuple[str, str]:
    """The modification text in a reply that came, or why there is none: (text, reason).

    The text is the answer's line (`answer_reader.read_line`) if it keeps the contract.

    Args:
        reply: The raw reply.
        template: The prompt's template; a reply that repeats it is not an answer.
    """
    reading = read_line(reply.text, Question(LABEL, _PROMPT_LABELS, template))
    if not reading.text:
        return "", reading.fault
    text, reason = keep_contract(reading.text)
    if not reason and reply.finish_reason == "length" and reading.is_last:
        return "", CUT_OFF
    return text, reason


def keep_contract(line: str) -> tuple[str, str]:
    """A line as modification text, or why it is none: (text, reason).

    It has one to twelve words and nothing but letters (Latin), digits, spaces and ``, . ' -``; a
    typographic apostrophe becomes a plain one.
    """
    text = line.replace("\u2019", "'")
    if not _LETTER.search(text):
        return "", f"no words: {line[:80]!r}"
    if foreign := sorted(set(_FOREIGN.findall(text))):
        return "", f"special characters: {' '.join(foreign[:8])}"
    words = len(text.split())
    if words > MAX_WORDS:
        return "", f"too long: {words} words of at most {MAX_WORDS}"
    return text, ""


def write_texts(
    generator: TextGenerator,
    prompt: Prompt,
    pairs: Sequence[CaptionPair],
    settings: WritingSettings,
    done: Callable[[int], None] = lambda count: None,
) -> dict[str, WrittenText]:
    """Modification texts of some pairs of captions, by key.

    Attempts go in rounds: all pairs are put to the generator, then the pairs with an answer that
    broke the contract, and so on. A failure of the engine (a late answer, a dead server) is final:
    the engine itself has retried where that helps.

    Args:
        generator: The language model.
        prompt: With the placeholders `caption_a` and `caption_b`.
        pairs: With different keys.
        settings: How to ask.
        done: Called with 1 for every pair that is settled.

    Raises:
        EngineUnavailable: The server cannot be used from the start, or gave up before any answer.
            If it goes away between two rounds, the pairs that still lack a text are settled as
            engine errors.
    """
    settled: dict[str, WrittenText] = {}
    pending = {pair.key: pair for pair in pairs}
    for attempt in range(1, settings.attempts + 1):
        requests = [to_request(pair, prompt, settings, attempt) for pair in pending.values()]
        replies: list[TextReply] = []
        try:
            for reply in generator.generate(requests) if requests else ():
                replies.append(reply)
                written = judge(reply, attempt, prompt.template)
                settled[reply.key] = written
                if written.status != REJECTED or attempt == settings.attempts:
                    del pending[reply.key]
                    done(1)
            if attempt == 1:
                require_engine(replies)
        except EngineUnavailable as failure:
            if attempt == 1:
                raise
            settled.update(_given_up(pending, settled, failure, done))
            break
    return settled


def to_request(
    pair: CaptionPair, prompt: Prompt, settings: WritingSettings, attempt: int
) -> TextRequest:
    """The request of one attempt, from 1."""
    digest = hashlib.sha256(f"{settings.seed}:{attempt}:{pair.key}".encode()).digest()
    first = attempt == 1
    return TextRequest(
        key=pair.key,
        # A line end inside a caption would look like the end of the prompt's field.
        prompt=prompt.render(
            caption_a=" ".join(pair.reference_caption.split()),
            caption_b=" ".join(pair.target_caption.split()),
        ),
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature
        if first
        else max(settings.temperature, settings.retry_temperature),
        top_p=settings.top_p,
        seed=int.from_bytes(digest[:4], "little") >> 1,  # servers take 31 bits
        stop=settings.stop,
    )


def judge(reply: TextReply, attempts: int, template: str) -> WrittenText:
    """The outcome of a pair by its last reply."""
    text, status, reason = "", reply.status, reply.reason
    if status == "ok":
        text, reason = read_answer(reply, template)
        status = REJECTED if reason else "ok"
    return WrittenText(reply.key, text, status, reason, reply.text, attempts, reply.answered_by)


def _given_up(
    pending: dict[str, CaptionPair],
    settled: dict[str, WrittenText],
    failure: EngineUnavailable,
    done: Callable[[int], None],
) -> Iterator[tuple[str, WrittenText]]:
    """The pairs that were to be asked again when the server had gone."""
    for key in pending:
        last = settled[key]
        reason = f"server gone: {failure}; the last answer had {last.reason}"
        yield key, WrittenText(key, "", "engine_error", reason, last.raw, last.attempts)
        done(1)
