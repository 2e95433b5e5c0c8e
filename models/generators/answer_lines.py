"""One line of a reply: label, courtesy, bullets, emphasis and quotes around its own words."""

from __future__ import annotations

import re
from typing import Final

from models.generators.reply_packaging import LETTER

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
    "|response|one)"
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
    r"[*_]{0,3}(?:final )?(?:answer|output|result|response|caption|description|text"
    r"|edited (?:caption|image(?: description)?|text)"
    r"|new (?:caption|description|image(?: description)?)"
    r"|(?:updated|modified|revised|resulting) (?:caption|description)|reformulation(?: text)?"
    r"|modification(?: text)?|added objects|objects(?: added)?|assistant|model|(?-i:A))"
    r"[*_]{0,3}\s*[:\uff1a][*_]{0,3}\s*",
    re.IGNORECASE,
)
_BULLET: Final = re.compile(r"(?:[-*•–+>]|\(?\d{1,2}[.)]|#{1,6})\s+")
_EMPHASIS: Final = ("***", "**", "__", "*", "_")
_QUOTES: Final = {
    '"': '"',
    "'": "'",
    "\u201c": "\u201d",
    "\u201e": "\u201c",
    "\u2018": "\u2019",
    "\u00ab": "\u00bb",
    "\u300c": "\u300d",
    "\u300e": "\u300f",
    "\uff02": "\uff02",
    "`": "`",
}


def stripped(line: str, label: str) -> str:
    """A line without label, courtesy, bullets, emphasis and quotes, in whichever order."""
    line = " ".join(line.split())
    while True:
        inner = without_marks(line)
        inner = inner[label_length(inner, label) :].strip()
        for pattern in (_GREETING, _ANNOUNCEMENT, _GENERIC_LABEL):
            if found := pattern.match(inner):
                inner = inner[found.end() :].strip()
        if inner == line:
            return line
        line = inner


def without_marks(line: str) -> str:
    line = line.strip()
    if (bullet := _BULLET.match(line)) and LETTER.search(line[bullet.end() :]):
        line = line[bullet.end() :].strip()
    for mark in _EMPHASIS:
        if len(line) > 2 * len(mark) and line.startswith(mark) and line.endswith(mark):
            inner = line[len(mark) : -len(mark)]
            if mark not in inner:
                line = inner.strip()
    return unquoted(line)


def label_length(line: str, label: str) -> int:
    """Length of the prompt's label at the start of a line, bold or plain; 0 without it."""
    if not label:
        return 0
    words = r"\s+".join(map(re.escape, label.rstrip(":").split()))
    marks = r"[*_#`\"']*\s*"
    end = r"(?:[:\uff1a]\s*[*_]*\s*|\s+[-–—]\s+|$)"
    found = re.match(rf"{marks}{words}\s*[*_`\"']*\s*{end}", line, re.IGNORECASE)
    return found.end() if found else 0


def announces(line: str) -> bool:
    """Whether a line only says that an answer follows."""
    return line.endswith((":", "\uff1a")) or bool(_ANNOUNCEMENT_ALONE.fullmatch(line))


def unquoted(line: str) -> str:
    """The line without a pair of quotes around all of it; quotes inside stay."""
    while len(line) > 1 and _QUOTES.get(line[0]) == line[-1]:
        inner = line[1:-1]
        if line[0] in inner or line[-1] in inner:
            break
        line = inner.strip()
    return line
