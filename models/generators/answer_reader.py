"""Reading of a language model's reply: its packaging goes, and what is no answer is refused.

One reader for edited captions, added objects and modification texts. Packaging is whatever servers,
chat templates and models put around an answer: blocks of reasoning, chat tokens, code fences, a
repeated label, a line of courtesy, quotes. It is taken off; an answer's own words are not changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from models.generators.answer_lines import announces, label_length, stripped, without_marks
from models.generators.non_answers import is_placeholder, plain, refuses, thinks_aloud
from models.generators.reply_packaging import LETTER, start_of_answer, unpacked

PARSE_VERSION: Final = 2
"""Raised when the same reply is read differently; it enters the producers of texts, which read
the stored replies of earlier versions again."""

_ECHO_WORDS: Final = 6
"""Words of a prompt in a row that nobody answers with by chance."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A reply, read.

    Attributes:
        text: The answer's line; empty where there is a fault.
        fault: Why the reply is no answer; the kind of fault stands before the first colon.
        is_last: Whether the answer runs to the end of the reply, where a token limit may cut it.
    """

    text: str = ""
    fault: str = ""
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """The facts of a prompt that its reply may repeat.

    Attributes:
        label: The last words of the prompt, which models like to repeat.
        others: The prompt's other labels; a reply that goes on with one has left its answer.
        template: The prompt without the texts filled in; words of it are an echo.
        may_be_nothing: Whether "none" is an answer.
    """

    label: str
    others: Collection[str] = ()
    template: str = ""
    may_be_nothing: bool = False


def read_line(raw: str, question: Question) -> Reading:
    """The answer in a raw reply: its first line that is one, without packaging."""
    body, open_reasoning = unpacked(raw)
    if not LETTER.search(body):
        if open_reasoning:
            return Reading(fault="cut off: the reply ends before its reasoning does")
        if not raw.strip():
            return Reading(fault="empty: the reply has no text")
        if body.strip() and question.may_be_nothing:
            return Reading(body.strip())
        return Reading(fault=f"no words: {shown(raw)}")
    lines = [line.strip() for line in _own_part(body, question).split("\n")]
    lines = [line for line in lines if line]
    for place, line in enumerate(lines):
        text = stripped(line, question.label)
        if not LETTER.search(text):
            if text and question.may_be_nothing and place == len(lines) - 1:
                return Reading(text)
            continue  # a label, a rule, a greeting: the answer follows
        if announces(text) and not thinks_aloud(text):
            continue
        fault = _fault(line, text, question)
        return Reading(fault=fault) if fault else Reading(text, is_last=place == len(lines) - 1)
    if not lines:
        return Reading(fault=f"echo: the reply repeats its prompt: {shown(body)}")
    named = any(LETTER.search(line[label_length(line, question.label) :]) for line in lines)
    return Reading(fault=f"{'preamble alone' if named else 'no words'}: {shown(body)}")


def read_whole(raw: str) -> Reading:
    """A free text in a raw reply, all its lines: reasoning and chat tokens go, nothing else."""
    body, open_reasoning = unpacked(raw)
    if not LETTER.search(body):
        cut = "cut off: the reply ends before its reasoning does"
        return Reading(fault=cut if open_reasoning else f"no words: {shown(raw)}")
    fault = _fault(body, body, Question(""))
    return Reading(fault=fault) if fault else Reading(body, is_last=True)


def cut_at_stop(text: str, stop: Iterable[str]) -> str:
    """The text before the first stop string that comes after the beginning of an answer.

    White space, reasoning, a label or a line of courtesy before it are not the answer yet: a stop
    string there cuts nothing, and neither does one inside reasoning that is still open.
    """
    start = start_of_answer(text)
    if start is None:
        return text
    found = (each.start() for word in stop for each in re.finditer(re.escape(word), text[start:]))
    for end in sorted(found):
        if _says_something(text[start : start + end]):
            return text[: start + end]
    return text


def lost_its_answer(text: str) -> bool:
    """Whether a reply ended before its answer began: a stop string may have cut it."""
    start = start_of_answer(text)
    return start is None or thinks_aloud(text[start:]) or not _says_something(text[start:])


def shown(text: str) -> str:
    """The beginning of a reply for a reason column, escaped."""
    return repr(" ".join(text.split())[:100])


def _says_something(text: str) -> bool:
    """Whether a line is more than a label or an announcement."""
    lines = (stripped(line, "") for line in text.split("\n"))
    return any(LETTER.search(line) and not announces(line) for line in lines)


def _own_part(body: str, question: Question) -> str:
    """The part that answers: from the prompt's last label on, and before another example."""
    template = question.template.strip()
    if template and (at := body.rfind(question.label)) > 0 and _is_echo(body[:at], template):
        if not LETTER.search(stripped(body[at:], question.label)):
            return ""
        body = body[at:]  # the whole prompt came back, and the answer behind it
    kept: list[str] = []
    for line in body.split("\n"):
        bare = plain(line.lstrip("*_# >-"))
        if any(bare.startswith(label.casefold()) for label in question.others):
            if any(LETTER.search(stripped(each, question.label)) for each in kept):
                break
            return ""
        if label_length(without_marks(line), question.label) and kept:
            kept = []  # what came before it announced it
        kept.append(line)
    return "\n".join(kept)


def _is_echo(text: str, template: str) -> bool:
    """Whether a text is words of the prompt itself."""
    said, asked = _words(text), _words(template)
    if len(said) < _ECHO_WORDS:
        return False
    return f" {' '.join(said[:12])} " in f" {' '.join(asked)} "


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", plain(text))


def _fault(line: str, text: str, question: Question) -> str:
    """Why a line of words is no answer; empty where it is one."""
    said = plain(text)
    if label := next((o for o in question.others if o.casefold() in said), ""):
        return f"echo: the answer repeats the prompt's label {label!r}"
    if question.template and _is_echo(text, question.template):
        return f"echo: the reply repeats its prompt: {shown(text)}"
    if refuses(text):
        return f"refusal: {shown(text)}"
    if thinks_aloud(text) or thinks_aloud(line):
        return f"thinks aloud: {shown(text)}"
    if text.startswith(("{", "[{")) or plain(text).startswith(("<html", "<!doctype", "<?xml")):
        return f"not a text: {shown(text)}"
    if not question.may_be_nothing and is_placeholder(text):
        return f"placeholder: {shown(text)}"
    return ""
