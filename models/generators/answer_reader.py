"""Reading of a language model's reply: its packaging goes, and what is no answer is refused.

One reader for edited captions, added objects and modification texts. Packaging is whatever servers,
chat templates and models put around an answer: blocks of reasoning, chat tokens, code fences, a
repeated label, a line of courtesy, quotes. It is taken off; an answer's own words are not changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from models.generators.non_answers import is_placeholder, plain, refuses, thinks_aloud
from models.plain_text import without_controls

PARSE_VERSION: Final = 2
"""Raised when the same reply is read differently; it enters the producers of texts, which read
the stored replies of earlier versions again."""

_REASONING: Final = (
    r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflection|scratchpad"
    r"|seed:think|inner_monologue)"
)
_OPEN: Final = re.compile(
    rf"<{_REASONING}(?:\s[^<>]*)?>|◁think▷|\[THINK\]|<\|begin_of_thought\|>|<unused94>(?:thought)?",
    re.IGNORECASE,
)
_CLOSE: Final = re.compile(
    rf"</{_REASONING}\s*>|◁/think▷|\[/THINK\]|<\|end_of_thought\|>|<unused95>", re.IGNORECASE
)
_CHANNEL: Final = re.compile(
    r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(\w+)[^<]*<\|message\|>", re.IGNORECASE
)
_BARE_CHANNELS: Final = re.compile(r"\s*analysis(?=[A-Z\W]).*assistantfinal", re.DOTALL)
_END_OF_TURN: Final = re.compile(
    r"<\|(?:im_end|eot_id|end|endoftext|end_of_text|return|eom_id|end_of_turn|user|im_start)\|>"
    r"|</s>|<end_of_turn>|<eos>|<｜end▁of▁sentence｜>|\[/?INST\]",
    re.IGNORECASE,
)
_CHAT_TOKEN: Final = re.compile(
    r"<\|(?:im_start|start)\|>\s*(?:assistant|model)?\s*"
    r"|<\|start_header_id\|>.*?<\|end_header_id\|>|<start_of_turn>\s*(?:model|assistant)?"
    r"|<\|[^|<>\n]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|</?s>|<(?:bos|eos|pad|unk|end_of_turn)>"
    r"|\[/?INST\]|<</?SYS>>",
    re.IGNORECASE,
)
_WRAPPER: Final = re.compile(
    r"<(answer|output|result|response|final|final_answer)>(.*?)(?:</\1>|\Z)|"
    r"<\|begin_of_solution\|>(.*?)(?:<\|end_of_solution\|>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_FENCE: Final = re.compile(r"(?:```|~~~)[\w+-]*[ \t]*\n?(.*?)(?:```|~~~|\Z)", re.DOTALL)
_COURTESY: Final = (
    r"(?:sure(?: thing)?|certainly|of course|absolutely|definitely|okay|ok|alright|great|got it"
    r"|understood|no problem|happy to help|gladly|my pleasure|yes"
    r"|natürlich|gerne|klar|bien sûr|voilà|claro|por supuesto|certo|certamente|конечно|好的|当然"
    r"|當然|はい|네)"
)
_GREETING: Final = re.compile(
    rf"(?:hello|hi)(?: there)?[!,.]+\s*|{_COURTESY}(?:[!,.。！，、]+|\s+[-–—]|\s*$)\s*",
    re.IGNORECASE,
)
_NOUN: Final = (
    "(?:answer|description|caption|edit|difference|objects?|reformulation text|result|output"
    "|response)"
)
_ADJECTIVE: Final = (
    "(?:final|new|edited|updated|modified|revised|resulting|correct|requested|image)"
)
_ANNOUNCEMENT: Final = re.compile(
    r"(?:here(?:'s|’s| is| are| you go)|this is (?:the|my|your)|below is|the following|my answer"
    rf"|the (?:{_ADJECTIVE} )+{_NOUN}|the {_NOUN} (?:is|are|would be|for|of|after|that))"
    r"\b[^:\n]{0,120}:(?:\s+|$)",
    re.IGNORECASE,
)
_ANNOUNCEMENT_ALONE: Final = re.compile(
    r"(?:here(?:'s|’s| is| are)|this is|below is|i have|i've) (?:the|your|my|an?|edited) "
    rf"(?:(?:{_ADJECTIVE}|short|plain|concise) )*(?:{_NOUN}|list|text)\b.{{0,80}}"
    r"|here you (?:go|are)\W*",
    re.IGNORECASE,
)
_GENERIC_LABEL: Final = re.compile(
    r"(?:final )?(?:answer|output|result|response|caption|description|text|edited (?:caption"
    r"|image(?: description)?|text)|new (?:caption|description|image(?: description)?)"
    r"|(?:updated|modified|revised|resulting) (?:caption|description)|reformulation(?: text)?"
    r"|modification(?: text)?|added objects|objects(?: added)?|assistant|model)\s*:\s*",
    re.IGNORECASE,
)
_BULLET: Final = re.compile(r"(?:[-*•–+]|\(?\d{1,2}[.)]|#{1,6})\s+")
_EMPHASIS: Final = ("***", "**", "__", "*", "_")
_QUOTES: Final = {
    '"': '"',
    "'": "'",
    "\u201c": "\u201d",
    "\u201e": "\u201c",
    "\u2018": "\u2019",
    "\u00ab": "\u00bb",
    "\u300c": "\u300d",
    "`": "`",
}
_LETTER: Final = re.compile(r"\w")
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
    if not _LETTER.search(body):
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
        text = _stripped(line, question.label)
        if not _LETTER.search(text):
            if text and question.may_be_nothing and place == len(lines) - 1:
                return Reading(text)
            continue  # a label, a rule, a greeting: the answer follows
        if _announces(text):
            continue
        fault = _fault(line, text, question)
        return Reading(fault=fault) if fault else Reading(text, is_last=place == len(lines) - 1)
    if not lines:
        return Reading(fault=f"echo: the reply repeats its prompt: {shown(body)}")
    named = any(_LETTER.search(line[_label_length(line, question.label) :]) for line in lines)
    return Reading(fault=f"{'preamble alone' if named else 'no words'}: {shown(body)}")


def read_whole(raw: str) -> Reading:
    """A free text in a raw reply, all its lines: reasoning and chat tokens go, nothing else."""
    body, open_reasoning = unpacked(raw)
    if not _LETTER.search(body):
        cut = "cut off: the reply ends before its reasoning does"
        return Reading(fault=cut if open_reasoning else f"no words: {shown(raw)}")
    fault = _fault(body, body, Question(""))
    return Reading(fault=fault) if fault else Reading(body, is_last=True)


def unpacked(raw: str) -> tuple[str, bool]:
    """The reply without reasoning, chat tokens and fences, and whether its reasoning never ended.

    A block may lack its opening tag (chat templates write it into the prompt).
    """
    text = without_controls(raw)
    text, is_open = _without_reasoning(text)
    text = text.strip()
    while token := _CHAT_TOKEN.match(text):
        text = text[token.end() :].lstrip()
    if end := _END_OF_TURN.search(text):
        text = text[: end.start()]
    text = _CHAT_TOKEN.sub("", text).strip()
    if (wrapped := _WRAPPER.search(text)) and _LETTER.search(inner := _group(wrapped)):
        text = inner.strip()
    if (fence := _FENCE.search(text)) and _LETTER.search(fence[1]):
        text = fence[1].strip()
    return _from_json(text), is_open


def cut_at_stop(text: str, stop: Iterable[str]) -> str:
    """The text before the first stop string that comes after the beginning of an answer.

    White space, reasoning, a label or a line of courtesy before it are not the answer yet: a stop
    string there cuts nothing, and neither does one inside reasoning that is still open.
    """
    start = _start_of_answer(text)
    if start is None:
        return text
    found = (each.start() for word in stop for each in re.finditer(re.escape(word), text[start:]))
    for end in sorted(found):
        if _says_something(text[start : start + end]):
            return text[: start + end]
    return text


def lost_its_answer(text: str) -> bool:
    """Whether a reply ended before its answer began: a stop string may have cut it."""
    start = _start_of_answer(text)
    return start is None or thinks_aloud(text[start:]) or not _says_something(text[start:])


def shown(text: str) -> str:
    """The beginning of a reply for a reason column, escaped."""
    return repr(" ".join(text.split())[:100])


def unquoted(line: str) -> str:
    """The line without a pair of quotes around all of it; quotes inside stay."""
    while len(line) > 1 and _QUOTES.get(line[0]) == line[-1]:
        inner = line[1:-1]
        if line[0] in inner or line[-1] in inner:
            break
        line = inner.strip()
    return line


def _start_of_answer(text: str) -> int | None:
    """Where the first word after all reasoning begins; None without one."""
    closings = list(_CLOSE.finditer(text))
    start = closings[-1].end() if closings else 0
    if _OPEN.search(text, start):
        return None
    for channel in _CHANNEL.finditer(text):
        if channel[1].lower() == "final":
            start = channel.end()
        elif channel.end() > start and not closings:
            start = len(text)
    word = _LETTER.search(text, start)
    return word.start() if word else None


def _says_something(text: str) -> bool:
    """Whether a line is more than a label or an announcement."""
    lines = (_stripped(line, "") for line in text.split("\n"))
    return any(_LETTER.search(line) and not _announces(line) for line in lines)


def _announces(line: str) -> bool:
    """Whether a line only says that an answer follows."""
    return line.endswith((":", "\uff1a")) or bool(_ANNOUNCEMENT_ALONE.fullmatch(line))


def _without_reasoning(text: str) -> tuple[str, bool]:
    channels = list(_CHANNEL.finditer(text))
    if channels:
        final = [channel for channel in channels if channel[1].lower() == "final"]
        return (text[final[-1].end() :], False) if final else ("", True)
    if bare := _BARE_CHANNELS.match(text):
        return text[bare.end() :], False
    while opening := _OPEN.search(text):
        closing = _CLOSE.search(text, opening.end())
        if not closing:
            return text[: opening.start()], True
        text = text[: opening.start()] + "\n" + text[closing.end() :]
    closings = list(_CLOSE.finditer(text))
    return (text[closings[-1].end() :] if closings else text), False


def _group(found: re.Match[str]) -> str:
    return next((part for part in found.groups()[1:] if part), "")


def _from_json(text: str) -> str:
    """The one text in a reply of JSON; any other reply as it is."""
    if not text.startswith(("{", "[")):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return value.strip() if isinstance(value, str) and value.strip() else text


def _own_part(body: str, question: Question) -> str:
    """The part that answers: from the prompt's last label on, and before another example."""
    template = question.template.strip()
    if template and (at := body.rfind(question.label)) > 0 and _is_echo(body[:at], template):
        body = body[at:]  # the whole prompt came back, and the answer behind it
    kept: list[str] = []
    for line in body.split("\n"):
        bare = plain(line.lstrip("*_# >-"))
        if any(bare.startswith(label.casefold()) for label in question.others):
            if any(_LETTER.search(_stripped(each, question.label)) for each in kept):
                break
            return ""
        if _label_length(_without_marks(line), question.label) and kept:
            kept = []  # what came before it announced it
        kept.append(line)
    return "\n".join(kept)


def _stripped(line: str, label: str) -> str:
    """A line without label, courtesy, bullets, emphasis and quotes, in whichever order."""
    line = " ".join(line.split())
    while True:
        inner = _without_marks(line)
        inner = inner[_label_length(inner, label) :].strip()
        for pattern in (_GREETING, _ANNOUNCEMENT, _GENERIC_LABEL):
            if found := pattern.match(inner):
                inner = inner[found.end() :].strip()
        if inner == line:
            return line
        line = inner


def _without_marks(line: str) -> str:
    line = line.strip()
    if (bullet := _BULLET.match(line)) and _LETTER.search(line[bullet.end() :]):
        line = line[bullet.end() :].strip()
    for mark in _EMPHASIS:
        if len(line) > 2 * len(mark) and line.startswith(mark) and line.endswith(mark):
            inner = line[len(mark) : -len(mark)]
            if mark not in inner:
                line = inner.strip()
    return unquoted(line)


def _label_length(line: str, label: str) -> int:
    """Length of the prompt's label at the start of a line, bold or plain; 0 without it."""
    if not label:
        return 0
    words = r"\s+".join(map(re.escape, label.rstrip(":").split()))
    marks = r"[*_#`\"']*\s*"
    end = r"(?:[:\uff1a]\s*[*_]*\s*|$)"
    found = re.match(rf"{marks}{words}\s*[*_`\"']*\s*{end}", line, re.IGNORECASE)
    return found.end() if found else 0


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
    if text.startswith(("{", "[{")):
        return f"not a text: {shown(text)}"
    if not question.may_be_nothing and is_placeholder(text):
        return f"placeholder: {shown(text)}"
    return ""
