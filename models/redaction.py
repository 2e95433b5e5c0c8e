"""Secrets of this process, taken out of what others say before it is kept or shown.

A server may echo a key: in the body of an error, in a header, in an answer, as it was sent or
encoded again. What is looked for are the values in the environment and in credentials files whose
names say that they are secret, user names and passwords in addresses, and what callers remembered.
"""

from __future__ import annotations

import base64
import configparser
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

HIDDEN: Final = "[secret]"
"""Stands where a secret stood; it needs no escape in JSON, HTML, Markdown or an address."""
SHORTEST: Final = 6
"""Characters of the shortest value that counts: `true` and `0` are no secrets."""

_SECRET_NAME: Final = re.compile(
    r"KEY(_ID)?$|TOKEN$|SECRET|PASSW(OR)?D|PASSPHRASE|AUTH_STRING|CREDENTIAL|_PASS$|_AUTH$", re.I
)
_USER_IN_ADDRESS: Final = re.compile(
    r"(?<=://)[^\s/?#@\"'<>\\]+(?=@)|(?<=%3A%2F%2F)[^\s/?#@%]+%3A[^\s/@%]+(?=%40)", re.I
)
_ALPHABETS: Final = (base64.b64encode, base64.urlsafe_b64encode)

_remembered: set[str] = set()


def remember(*values: str) -> None:
    """Count further values as secrets, and the password of one that is `user:password`."""
    for value in values:
        _remembered.update(part for part in _parts(value) if len(part) >= SHORTEST)


def redact(text: str) -> str:
    """The text without secrets, however they are encoded in it."""
    return redactor()(text)


def redactor() -> Callable[[str], str]:
    """`redact` for many texts, with the secrets that are known now.

    Collecting them reads the whole environment, which takes longer than most texts do. A text that
    was seen before is not searched again.
    """
    pattern = _pattern(frozenset(_known()))

    @cache
    def cleared(text: str) -> str:
        found = pattern.sub(HIDDEN, text) if pattern else text
        return _USER_IN_ADDRESS.sub(HIDDEN, found) if "@" in found or "%40" in found else found

    return cleared


def redact_bytes(content: bytes) -> bytes:
    """Bytes of a text without secrets; those that are no UTF-8 stay as they are."""
    text = content.decode("utf-8", "surrogateescape")
    cleared = redact(text)
    return content if cleared == text else cleared.encode("utf-8", "surrogateescape")


def redact_error(error: BaseException) -> BaseException:
    """Clear an exception and all that it is chained to; another one where it cannot be cleared.

    Returns:
        The exception with what it says redacted in place, or a `RuntimeError` that says the same
        without secrets, where its text comes from elsewhere than its arguments and attributes.
    """
    return _cleared(error, set())


def _cleared(error: BaseException, seen: set[int]) -> BaseException:
    seen.add(id(error))
    error.args = _without(error.args)
    for name, value in list(vars(error).items()):
        if isinstance(value, str | bytes | list | tuple | dict):
            setattr(error, name, _without(value))
    if isinstance(error, OSError):
        for name in ("strerror", "filename", "filename2"):
            if isinstance(value := getattr(error, name), str):
                setattr(error, name, redact(value))
    for name in ("__cause__", "__context__"):
        other = getattr(error, name)
        if other is not None and id(other) not in seen:
            hidden = error.__suppress_context__
            setattr(error, name, _cleared(other, seen))
            error.__suppress_context__ = hidden
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            if id(each) not in seen:
                _cleared(each, seen)
    said = f"{error} {error!r}"
    if said == redact(said):
        return error
    cleared = RuntimeError(f"{type(error).__name__}: {redact(str(error))}")
    return cleared.with_traceback(error.__traceback__)


def _without(value: Any) -> Any:
    """A value of strings and containers without secrets, of the same type."""
    if isinstance(value, str):
        return redact(value) if type(value) is str else value
    if isinstance(value, bytes):
        return redact_bytes(value)
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(map(_without, value))
    return value


def _known() -> Iterator[str]:
    """Every secret that this process can know of."""
    yield from _remembered
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name):
            yield from _parts(value)
        if "://" in value:
            yield from _passwords(value)
    yield from _of_aws_profiles(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", ""), _home())


def _home() -> str:
    return os.environ.get("HOME", "")


@lru_cache(maxsize=4)
def _of_aws_profiles(named: str, home: str) -> tuple[str, ...]:
    """Keys of ~/.aws/credentials, which the S3 client reads where the environment has none."""
    profiles = configparser.RawConfigParser()
    try:
        profiles.read(named or Path(home, ".aws", "credentials"), encoding="utf-8")
    except (configparser.Error, OSError, UnicodeError):
        return ()
    values: Iterable[Mapping[str, str]] = profiles.values()
    return tuple(v for each in values for k, v in each.items() if _SECRET_NAME.search(k))


def _parts(value: str) -> Iterator[str]:
    """A value, and the password of `user:password`."""
    yield value
    if (password := value.partition(":")[2]) and "://" not in value:
        yield password


def _passwords(address: str) -> Iterator[str]:
    """The user's part of an address, and its password as it is sent."""
    for word in re.split(r"[\s,;]+", address):
        try:
            parts = urlsplit(word)
        except ValueError:
            continue
        if "@" in parts.netloc and ":" in (user := parts.netloc.rpartition("@")[0]):
            yield from (user, unquote(user), *{p := user.partition(":")[2], unquote(p)})


@lru_cache(maxsize=8)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str] | None:
    """What matches each secret in any of its encodings, the longest first."""
    long = sorted((s for s in secrets if len(s) >= SHORTEST), key=lambda s: (-len(s), s))
    forms = [form for secret in long for form in (_spelt(secret), *_packed(secret))]
    return re.compile("|".join(dict.fromkeys(forms))) if forms else None


def _spelt(secret: str) -> str:
    """Each character as it is, or in the escapes of JSON, addresses or HTML."""
    return "".join(map(_character, secret))


_NAMED: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"}


def _character(character: str) -> str:
    code = ord(character)
    percent = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
    ways = [
        rf"(?i:{re.escape(percent)})",
        rf"(?i:\\{{1,4}}u{code:04x}|\\{{1,4}}x{code:02x}|&#0*{code};|&#x0*{code:x};)",
    ]
    if character in _NAMED:
        ways.append(re.escape(_NAMED[character]))
    if character == " ":
        ways.append(r"\+")
    ways.append(rf"\\{{0,4}}{re.escape(character)}")  # last: "%" also begins "%25"
    return f"(?:{'|'.join(ways)})"


def _packed(secret: str) -> Iterator[str]:
    """In base64, at each of the three places where it may begin, and in hexadecimal digits."""
    content = secret.encode("utf-8", "surrogateescape")
    for before in range(3):
        for encode in _ALPHABETS:
            packed = encode(bytes(before) + content).decode()
            # Characters that also hold bits of what stands before or behind are left out.
            first = (8 * before + 5) // 6
            last = 8 * (before + len(content)) // 6
            # JSON and addresses escape a few of them.
            yield "".join(_character(c) if c in "+/=" else c for c in packed[first:last])
    yield f"(?i:{content.hex()})"
