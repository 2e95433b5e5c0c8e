"""Secrets are found however a server spells them, and nothing else is taken out."""

from __future__ import annotations

import base64
import html
import json
import random
import string
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from models.redaction import HIDDEN, redact, redact_bytes, redact_error
from tests.fakes.openai_server import FakeOpenAIServer, Reply, chat, error
from tests.models.test_openai_server import ask

KEY = 'sk-aB3/x+9_"q\\ü &z'
SPELT = {
    "as it is": KEY,
    "JSON": json.dumps(KEY),
    "JSON with all letters": json.dumps(KEY, ensure_ascii=False),
    "JSON in JSON": json.dumps(json.dumps({"key": KEY})),
    "JSON of PHP": json.dumps(KEY).replace("/", "\\/"),
    "escapes alone": "".join(f"\\u{ord(c):04X}" for c in KEY),
    "percent": quote(KEY, safe=""),
    "percent in small letters": quote(KEY, safe="").lower().replace("sk-ab3", "sk-aB3"),
    "form": quote_plus(KEY),
    "HTML": html.escape(KEY),
    "HTML by numbers": "".join(f"&#{ord(c)};" for c in KEY),
    "hexadecimal": KEY.encode().hex(),
    "repr": repr(KEY),
    "bytes": repr(KEY.encode("latin-1")),
}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)


@pytest.mark.parametrize("way", SPELT)
def test_a_secret_is_found_in_every_encoding(way: str) -> None:
    for text in (SPELT[way], f"key: {SPELT[way]}, rest", f"a{SPELT[way]}b"):
        found = redact(text)
        assert HIDDEN in found
        assert "B3" not in found
        assert KEY[:6].encode().hex() not in found
        assert redact_bytes(text.encode()).decode() == found


@pytest.mark.parametrize("before", ["", "u", "us", "user:", "Bearer ", "cirflow:x"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_is_found_in_base64_wherever_it_begins(before: str, encode: object) -> None:
    assert callable(encode)
    packed = encode(f"{before}{KEY}tail".encode()).decode()
    for text in (packed, packed.replace("/", "\\/").replace("+", "\\u002b"), quote(packed)):
        found = redact(f"Basic {text}")
        assert HIDDEN in found
        assert len(found) < len(text)


def test_random_secrets_leave_no_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(5)
    for _ in range(100):
        secret = "".join(dice.choice(string.printable[:95]) for _ in range(dice.randint(6, 40)))
        monkeypatch.setenv("SOME_API_KEY", secret)
        for text in (secret, json.dumps(secret), quote(secret, safe=""), html.escape(secret)):
            assert redact(f"<{text}>").strip('<">') == HIDDEN


def test_what_counts_as_a_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "aws").write_text("[a]\naws_access_key_id = AKIAFROMFILE\nregion = nowhere-1\n")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIA123456",
        "AWS_SECRET_ACCESS_KEY": "abc/def/ghi",
        "AWS_SESSION_TOKEN": "token-of-session",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "https://store.example.org",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "aws"),
        "PREFECT_API_AUTH_STRING": "cirflow:pass-word-9",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://me:p%40ss-1@db:5432/x",
        "HF_TOKEN": "hf_abcdef",
        "HTTPS_PROXY": "http://proxy-user:proxy-pass@proxy:1",
        "TOKENIZERS_PARALLELISM": "falsely",
        "SOME_API_KEY": "true",
    }.items():
        monkeypatch.setenv(name, value)
    said = (
        "AKIA123456 abc/def/ghi token-of-session AKIAFROMFILE cirflow:pass-word-9 pass-word-9 "
        "p%40ss-1 p@ss-1 hf_abcdef proxy-pass"
    )
    assert set(redact(said).split()) == {HIDDEN}
    kept = "eu-west-1 https://store.example.org nowhere-1 falsely true db:5432 a@b.org me@home"
    assert redact(kept) == kept


def test_users_in_addresses_are_hidden_even_when_nobody_knows_them() -> None:
    for text, shown in {
        "http://me:word@host/x?y=z@w": f"http://{HIDDEN}@host/x?y=z@w",
        "s3://token@bucket/key": f"s3://{HIDDEN}@bucket/key",
        "redis://:word@host": f"redis://{HIDDEN}@host",
        "u=http%3A%2F%2Fme%3Aword%40host": f"u=http%3A%2F%2F{HIDDEN}%40host",
        "see https://host/a@b and c@d": "see https://host/a@b and c@d",
    }.items():
        assert redact(text) == shown


def test_an_exception_and_its_chain_are_cleared() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            return KEY

    def raised() -> BaseException:
        try:
            try:
                raise OSError(5, f"said {KEY}", f"/x/{KEY}")
            except OSError as first:
                raise ValueError(f"of {KEY}", {"body": [KEY]}) from first
        except ValueError as second:
            second.add_note(f"note {KEY}")
            second.body = {"error": KEY}  # type: ignore[attr-defined]
            return second

    found = raised()
    assert redact_error(found) is found
    assert isinstance(found, ValueError)
    cause = found.__cause__
    assert isinstance(cause, OSError)
    assert (cause.errno, cause.filename) == (5, f"/x/{HIDDEN}")
    shown = f"{found!r} {vars(found)} {cause!r} {cause}"
    assert KEY not in shown.replace("\\\\", "\\")
    assert "B3" not in shown
    assert shown.count(HIDDEN) >= 6

    cleared = redact_error(Odd())
    assert str(cleared) == f"Odd: {HIDDEN}"
    outer = RuntimeError("fine")
    outer.__cause__ = Odd()
    assert redact_error(outer) is outer
    assert str(outer.__cause__) == f"Odd: {HIDDEN}"


SENT = 'sk-aB3/x+9_"q\\~&z'
"""A key that a header can hold."""
ECHOES = [
    error(401, f"Incorrect API key provided: {SENT}"),
    error(403, f"no: {base64.b64encode(SENT.encode()).decode()}"),
    Reply(500, f"<html>{SENT}</html>".encode()),
    error(400, f"Authorization: Bearer {quote(SENT)}", x_request=quote(SENT)),
    Reply(200, f"not JSON {SENT}".encode()),
    chat(f"a dog, {SENT}"),
    error(429, f"quota exceeded for {SENT}"),
]


@pytest.mark.parametrize("reply", ECHOES, ids=lambda reply: str(reply.status))
def test_no_reply_or_error_of_the_client_holds_what_a_server_echoed(
    reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SENT)
    with FakeOpenAIServer(then=lambda request: reply) as server:
        answer = ask(server, attempts=1, transport_retries=0)
    if reply.status in (400, 401, 403, 429) or answer.status == "ok":
        assert HIDDEN in str(answer)
    assert "B3" not in str(answer)
    assert base64.b64encode(SENT.encode()).decode()[:12] not in str(answer)
