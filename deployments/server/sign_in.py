"""Links that sign a browser in: each works once, within the hour.

A link holds a key after the `#`, which browsers do not send. Its page posts the key, gets the auth
string for it, and keeps it where Prefect's UI looks for it: in the storage of this one origin. A
cookie would be sent to every port of the machine's address, so also to servers of other users.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import time
from pathlib import Path

from deployments.server.guard import Message, Receive, Send, answer

PATH = "/cirflow/sign-in"
HOUR = 3600.0
_LONGEST = 200

_SCRIPT = """
const key = location.hash.slice(1);
history.replaceState(null, "", location.pathname);
fetch(location.pathname, {method: "POST", body: key}).then(async (reply) => {
  const text = await reply.text();
  if (!reply.ok) { document.body.textContent = text; return; }
  localStorage.setItem("prefect-password", text);
  location.replace("/deployments");
});
"""
_PAGE = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>cirflow: signing in</title></head>
<body>Signing in ...<script>{_SCRIPT}</script></body></html>
"""
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; script-src 'sha256-{_HASH}'; connect-src 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def make_key(folder: Path) -> str:
    """Make the key of a new link; the folder keeps its hash alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in folder.iterdir():
        if _age(file) > HOUR:
            file.unlink(missing_ok=True)
    key = secrets.token_urlsafe(32)
    descriptor = os.open(_file(folder, key), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    return key


def use_key(folder: Path, key: str) -> bool:
    """Whether a key is good; it is used up by the question."""
    file = _file(folder, key)
    age = _age(file)
    try:
        file.unlink()  # of two askers, one succeeds
    except FileNotFoundError:
        return False
    return age <= HOUR


def _file(folder: Path, key: str) -> Path:
    return folder / hashlib.sha256(key.encode()).hexdigest()


def _age(file: Path) -> float:
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


class SignIn:
    """The page behind the links.

    Args:
        folder: Where keys are noted.
        auth: The auth string that a good key is given.
    """

    def __init__(self, folder: Path, auth: str) -> None:
        self._folder = folder
        self._auth = auth

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """GET: the page; POST: the auth string for a key, as the UI keeps it."""
        if scope["method"] == "GET":
            await answer(send, 200, _PAGE, "text/html", _POLICY)
        elif scope["method"] != "POST":
            await answer(send, 405, "Only GET and POST.\n")
        elif use_key(self._folder, await _body(receive)):
            await answer(send, 200, base64.b64encode(self._auth.encode()).decode())
        else:
            await answer(
                send, 403, "This link was used or is too old: `cirflow up` prints another.\n"
            )


async def _body(receive: Receive) -> str:
    body = b""
    while len(body) <= _LONGEST:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body.decode("ascii", errors="replace")
    return ""
