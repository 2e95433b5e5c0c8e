"""The text steps of CVSI: edited captions (eq. 7) and the objects most likely added (eq. 6).

Captions and a modification text become requests for a text generator, and its raw replies
become answers. An answer is what the model said, cleaned by fixed rules, or a rejection with a
reason; the unedited caption or the modification text never takes its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from models.generators.answer_reader import Question, Reading, cut_at_stop, read_line
from models.generators.non_answers import adds_nothing
from models.generators.reply_packaging import unpacked
from models.prompts.library import Prompt
from models.protocols import Fingerprint, TextReply, TextRequest

VERSION: Final = 1
"""Raised when the same captions are put differently; the reading has a version of its own."""

Step: TypeAlias = Literal["edit", "objects"]
EditMode: TypeAlias = Literal["per_caption", "joined"]
ObjectsContent: TypeAlias = Literal["first", "joined"]
AnswerParsing: TypeAlias = Literal["strict", "verbatim"]

LABELS: Final[dict[Step, str]] = {
    "edit": "Edited Description:",
    "objects": "Objects most likely added:",
}
"""The last line of each step's prompt, which models like to repeat."""

_PROMPT_LABELS: Final = ("Image Content:", "Instruction:", *LABELS.values())
_JOIN: Final = ", "  # how the released code joins captions
NOTHING: Final = "none"
"""The answer of the objects step where nothing is added, in whichever words the model says so."""


@dataclass(frozen=True, slots=True)
class RewriteInput:
    """The input of one call of the text generator.

    Attributes:
        content: The image content shown to it: one caption, or several joined.
        text: The modification text.
        place: Where an imported answer stands; empty for a question to a model.
    """

    content: str
    text: str
    place: str = ""

    @property
    def key(self) -> str:
        """Identity of the pair: the same caption and text are rewritten once for all queries."""
        digest = hashlib.sha256()
        for part in (self.content, self.text, *filter(None, [self.place])):
            raw = part.encode()
            digest.update(f"{len(raw)}:".encode() + raw)
        return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteSettings:
    """How requests are put and replies are read.

    Attributes:
        max_new_tokens: Upper bound on generated tokens.
        temperature: 0 is greedy (difference D12).
        top_p: Nucleus mass when the temperature is not 0.
        seed: Seed of the step; every input has its own stream.
        parsing: D13. `strict` removes all packaging, keeps the first line and caps its words;
            `verbatim` takes the reply as it is, without reasoning and chat tokens. Neither takes
            a reply that is not an answer.
        max_words: Longest answer under `strict`; longer ones are cut and counted.
        stop: Strings that end a reply after its first words. The default ends it where a model
            starts the next example of its own.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    parsing: AnswerParsing = "strict"
    max_words: int = 50
    stop: tuple[str, ...] = ("\n\n",)

    def __post_init__(self) -> None:
        """Refuse values that no step can honour."""
        if self.parsing not in ("strict", "verbatim"):
            raise ValueError(f"parsing must be 'strict' or 'verbatim', not {self.parsing!r}")
        if self.max_words < 1:
            raise ValueError(f"max_words must be at least 1, not {self.max_words}")

    @property
    def fingerprint(self) -> Fingerprint:
        """Every field, and the version of the code that puts the questions."""
        return {
            "rewriting_version": VERSION,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "parsing": self.parsing,
            "max_words": self.max_words,
            "stop": list(self.stop),
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply, read.

    Attributes:
        text: The edited caption or the added objects (`NOTHING` where none is); empty unless the
            status is `ok`.
        status: The reply's status, or `rejected` when its text is not an answer.
        reason: Why, in words; empty when the status is `ok`. The kind of fault stands before the
            first colon.
        truncated: Whether the answer was cut, by the word limit or by the token limit.
    """

    text: str
    status: str = "ok"
    reason: str = ""
    truncated: bool = False


def edit_inputs(
    captions: Sequence[str], text: str, mode: EditMode = "per_caption"
) -> list[RewriteInput]:
    """Inputs of the edit step for one query (D1): every caption, or all of them at once."""
    _check_captions(captions)
    if mode == "per_caption":
        return [RewriteInput(caption, text) for caption in captions]
    if mode == "joined":
        return [RewriteInput(_JOIN.join(captions), text)]
    raise ValueError(f"edit mode must be 'per_caption' or 'joined', not {mode!r}")


def objects_input(
    captions: Sequence[str], text: str, content: ObjectsContent = "first"
) -> RewriteInput:
    """Input of the objects step for one query (D2): the first caption, or all of them."""
    _check_captions(captions)
    if content == "first":
        return RewriteInput(captions[0], text)
    if content == "joined":
        return RewriteInput(_JOIN.join(captions), text)
    raise ValueError(f"objects content must be 'first' or 'joined', not {content!r}")


def to_request(item: RewriteInput, prompt: Prompt, settings: RewriteSettings) -> TextRequest:
    """The request for one input; its key is the input's."""
    # A line end inside a caption would look like the next field of the prompt.
    content, text = " ".join(item.content.split()), " ".join(item.text.split())
    digest = hashlib.sha256(f"{settings.seed}:{item.key}".encode()).digest()
    return TextRequest(
        key=item.key,
        prompt=prompt.render(caption=content, text=text),
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=int.from_bytes(digest[:4], "little") >> 1,  # servers take 31 bits
        stop=settings.stop,
    )


def read_reply(
    reply: TextReply, step: Step, settings: RewriteSettings, template: str = ""
) -> Answer:
    """The answer in a reply.

    Args:
        reply: The raw reply.
        step: What was asked for.
        settings: How replies are read.
        template: The prompt's template; a reply that repeats it is not an answer.
    """
    if reply.status != "ok":
        return Answer("", reply.status, reply.reason)
    others = tuple(label for label in _PROMPT_LABELS if label != LABELS[step])
    reading = read_line(
        reply.text, Question(LABELS[step], others, template, may_be_nothing=step == "objects")
    )
    if not reading.text:
        return Answer("", "rejected", reading.fault)
    at_limit = reply.finish_reason == "length"
    if settings.parsing == "verbatim":
        body, _ = unpacked(reply.text)
        return Answer(cut_at_stop(body, settings.stop).strip(), truncated=at_limit)
    words = _own_words(reading, step).split()
    cut = len(words) > settings.max_words
    return Answer(
        " ".join(words[: settings.max_words]), truncated=cut or (at_limit and reading.is_last)
    )


def _own_words(reading: Reading, step: Step) -> str:
    """The line as the step's answer: objects have no full stop, and one word for nothing."""
    if step == "edit":
        return reading.text
    if adds_nothing(reading.text):
        return NOTHING
    return reading.text.rstrip(".\u3002 ")


def _check_captions(captions: Sequence[str]) -> None:
    if not captions:
        raise ValueError("a query without captions cannot be rewritten; caption its image first")
