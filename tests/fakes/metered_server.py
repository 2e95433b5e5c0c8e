"""An OpenAI-compatible server that keeps its own books of calls and tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.fakes.openai_server import Reply, error


class Books:
    """Answers as another server does, says in `usage` what it took, and adds that up.

    Args:
        answer: The other server.
        fails: Every so many requests one is refused with status 503; 0 for none.

    Attributes:
        calls: Completion requests that came.
        prompt_tokens: Words that were read for answers.
        answer_tokens: Words that were answered.
    """

    def __init__(self, answer: Callable[[Mapping[str, Any]], Reply], fails: int = 0) -> None:
        self._answer = answer
        self._fails = fails
        self._lock = threading.Lock()
        self.calls = self.prompt_tokens = self.answer_tokens = 0

    def __call__(self, request: Mapping[str, Any]) -> Reply:
        with self._lock:
            self.calls += 1
            if self._fails and self.calls % self._fails == 0:
                return error(503, "busy")
        reply = self._answer(request)
        read = len(str(request["messages"][0]["content"]).split())
        written = sum(len(c["message"]["content"].split()) for c in reply.body["choices"])
        with self._lock:
            self.prompt_tokens += read
            self.answer_tokens += written
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": 0}
        return replace(reply, body={**reply.body, "usage": usage})
