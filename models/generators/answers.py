"""Rules every text engine applies to a request and its raw answer, so that engines agree."""

from __future__ import annotations

from typing import Final

from models.generators.answer_reader import cut_at_stop
from models.plain_text import without_controls
from models.protocols import TextReply, TextRequest

EMPTY_ANSWER: Final = "the model answered nothing"
"""Reason of a reply without text, which is not an answer to any question."""

ALLOWED_ENDS: Final = ("stop", "length")


def check_request(request: TextRequest) -> None:
    """Refuse a request that no engine can honour.

    Raises:
        ValueError: With the request's key and the field at fault.
    """
    problems = []
    if not request.prompt:
        problems.append("the prompt is empty")
    if request.max_new_tokens < 1:
        problems.append(f"max_new_tokens must be at least 1, not {request.max_new_tokens}")
    if request.temperature < 0.0:
        problems.append(f"temperature must not be negative, not {request.temperature}")
    if not 0.0 < request.top_p <= 1.0:
        problems.append(f"top_p must lie in (0, 1], not {request.top_p}")
    if "" in request.stop:
        problems.append("a stop string is empty")
    if problems:
        raise ValueError(f"text request {request.key!r}: " + "; ".join(problems))


def reply_to(
    request: TextRequest, text: str, finish_reason: str, *, attempts: int = 1
) -> TextReply:
    """A reply with the text up to a stop string, or a rejected one when there is no text at all.

    A stop string cuts after the first words of the answer only (`answer_reader.cut_at_stop`).
    White space around the text is dropped: whether the first word comes with a space is a
    matter of the engine's detokenizer (vLLM keeps what transformers strips), not of the model.
    """
    text = without_controls(cut_at_stop(text, request.stop)).strip()
    if not text:
        return TextReply(request.key, "", "rejected", EMPTY_ANSWER, finish_reason, attempts)
    return TextReply(request.key, text, "ok", "", finish_reason, attempts)
