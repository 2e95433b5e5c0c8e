"""The packaging that servers, chat templates and reasoning models put around a whole reply."""

from __future__ import annotations

import html
import json
import re
from typing import Final

from models.plain_text import without_controls

LETTER: Final = re.compile(r"\w")
"""A letter or digit of any language."""

_REASONING: Final = (
    r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflection|scratchpad"
    r"|seed:think|inner_monologue)"
)
_OPEN: Final = re.compile(
    rf"<\|?{_REASONING}(?:\s[^<>]*)?\|?>|◁think▷|\[THINK\]|<\|begin_of_thought\|>|<unused94>(?:thought)?",
    re.IGNORECASE,
)
_CLOSE: Final = re.compile(
    rf"<\|?/\|?{_REASONING}\s*\|?>|◁/think▷|\[/THINK\]|<\|end_of_thought\|>|<unused95>",
    re.IGNORECASE,
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
_OWN_PROMPT: Final = re.compile(r"\s*(?:<s>)?\s*\[INST\].*\[/INST\]", re.DOTALL)
"""The prompt in its chat template, which some servers send back before the answer."""
_ENTITY: Final = re.compile(
    r"&(?:quot|amp|lt|gt|apos|nbsp|#\d{1,7}|#x[0-9a-f]{1,6});", re.IGNORECASE
)
_BREAK: Final = re.compile(r"</?(?:p|div|li|ul|ol|h[1-6]|blockquote|pre)\s*/?>", re.IGNORECASE)
_OUTER_BREAK: Final = re.compile(r"^(?:\s|<br\s*/?>)+|(?:\s|<br\s*/?>)+$", re.IGNORECASE)
_INLINE: Final = re.compile(r"</?(?:b|i|u|em|strong|span|code|q|mark)>", re.IGNORECASE)
_INVISIBLE: Final = re.compile("[\u200b\u2060\ufeff\u00ad]")
_BOXED: Final = re.compile(r"\$*\\boxed\{(?:\\text\{)?([^{}]*)\}{1,2}\$*")
_TABLE: Final = re.compile(r"(?:\|[^\n]*\|\s*\n)+\|[^\n]*\|")
_ERRORS: Final = {"error", "errors", "detail", "message"}
"""Keys under which servers say what went wrong."""
_FENCE: Final = re.compile(r"(?:```|~~~)[\w+-]*[ \t]*\n?(.*?)(?:```|~~~|\Z)", re.DOTALL)


def unpacked(raw: str) -> tuple[str, bool]:
    """The reply without reasoning, chat tokens and fences, and whether its reasoning never ended.

    A block may lack its opening tag (chat templates write it into the prompt).
    """
    text = without_controls(raw)
    text, is_open = _without_reasoning(text)
    text = text.strip()
    if prompt := _OWN_PROMPT.match(text):
        text = text[prompt.end() :]
    while token := _CHAT_TOKEN.match(text):
        text = text[token.end() :].lstrip()
    if end := _END_OF_TURN.search(text):
        text = text[: end.start()]
    text = _CHAT_TOKEN.sub("", text).strip()
    if (wrapped := _WRAPPER.search(text)) and LETTER.search(inner := _group(wrapped)):
        text = inner.strip()
    if (fence := _FENCE.search(text)) and LETTER.search(fence[1]):
        text = fence[1].strip()
    return _from_json(_without_markup(text).strip()), is_open


def _without_markup(text: str) -> str:
    """The text without HTML, LaTeX's box, characters that nobody sees, and a table around it."""
    text = _INVISIBLE.sub("", _ENTITY.sub(lambda found: html.unescape(found[0]), text))
    text = _BOXED.sub(r"\1", _INLINE.sub("", _BREAK.sub("\n", text)))
    text = _OUTER_BREAK.sub("", text)
    if _TABLE.fullmatch(text.strip()):  # the last cell of its last row
        text = text.strip().rstrip("| ").rpartition("|")[2]
    return text


def start_of_answer(text: str) -> int | None:
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
    word = LETTER.search(text, start)
    return word.start() if word else None


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
    while isinstance(value, dict) and len(value) == 1 and not value.keys() & _ERRORS:
        value = next(iter(value.values()))
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return value.strip() if isinstance(value, str) and value.strip() else text
