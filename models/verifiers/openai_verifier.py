"""A vision-language model behind an OpenAI-compatible server that answers yes or no.

One chat request a pair, with the same parts in the same order as in process, one token, and the 20
likeliest tokens of its position (the protocol's limit). The pictures travel inside the request as
data URLs. Where one of the two answers is not among the 20, its log-probability is at most the
smallest of them, and the margin is a bound (`censored`); where neither is, the status is
`off_format`.

Scoring endpoints (`/score`, `/rerank`) are not used: served Qwen3-VL re-rankers gave about 0.5 for
everything there. What a server is worth is tested before the first request (`self_test`).
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from models.captioners.chat import check_proportions
from models.captioners.openai_images import data_url
from models.generators.server_settings import ServerSettings
from models.protocols import Fingerprint
from models.verifiers.answer_tokens import NO, YES, is_word
from models.verifiers.prompt import Picture, RoleTexts, VerifierPrompts
from models.verifiers.protocol import (
    Verification,
    VerificationRequest,
    VerificationStatus,
)

if TYPE_CHECKING:
    from PIL import Image

    from models.generators.openai_session import Outcome, ServerSession

VERSION: Final = 1
"""Raised when the code puts other questions to the server or reads its answers differently."""
LISTED: Final = 20
"""Tokens that are asked for; OpenAI's protocol and vLLM's default allow no more."""


class OpenAIVerifierSettings(ServerSettings):
    """An OpenAI-compatible server that takes two pictures and gives logprobs, such as vLLM."""

    engine: Literal["openai-verifier"] = "openai-verifier"
    prompts: VerifierPrompts = VerifierPrompts()
    """How a pair is put in words."""
    same_as: str = ""
    """Directory of the served checkpoint, where it is on this machine: the test at the start then
    compares prompts and margins with those in process."""
    most_difference: float = Field(0.05, gt=0)
    """Most that a margin may differ from that in process: 0.05 for fp32, 0.5 for bf16."""
    skip_self_test: bool = False
    """Believe the server without the test at the start."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Served model, the operator's word on its weights, prompts and code version; no address.

        Pixel limits are the server's (`--mm-processor-kwargs`): `identity` has to name them.
        """
        return {
            "engine": "openai-server-verifier",
            "engine_version": importlib.metadata.version("openai"),
            "version": VERSION,
            "model": self.model,
            "identity": self.identity,
            "prompts": self.prompts.read().fingerprint,
            "listed": LISTED,
        }

    def load(self) -> OpenAIVerifier:
        """The verifier; the server is first contacted when the first request comes.

        Raises:
            ValueError: The address is missing.
        """
        self.require_address()
        return OpenAIVerifier(self)


class OpenAIVerifier:
    """Verifies pairs through a server; fulfils `models.verifiers.protocol.Verifier`."""

    def __init__(self, settings: OpenAIVerifierSettings) -> None:
        """Remember the settings.

        Raises:
            ValueError: A prompt cannot be read.
        """
        self._settings = settings
        self._texts = settings.prompts.read()
        self._is_tested = settings.skip_self_test

    def verify(self, requests: Iterable[VerificationRequest]) -> Iterator[Verification]:
        """Answer every request exactly once, as answers arrive.

        Raises:
            ServerUnusable: Before the first request, when the server cannot be used at all or
                fails the test of `models.verifiers.self_test`.
        """
        if not self._is_tested:
            from models.verifiers.self_test import require_sound_server

            require_sound_server(self._settings, self._answers)
            self._is_tested = True
        yield from self._answers(requests)

    def _answers(self, requests: Iterable[VerificationRequest]) -> Iterator[Verification]:
        from models.generators.background_loop import BackgroundLoop
        from models.generators.openai_session import open_session

        with BackgroundLoop() as loop, open_session(loop, self._settings) as session:

            async def verify(request: VerificationRequest) -> Verification:
                return await _verify(session, self._texts, request)

            yield from loop.map_bounded(verify, requests, self._settings.concurrency)


async def _verify(
    session: ServerSession, texts: RoleTexts, request: VerificationRequest
) -> Verification:
    from models.generators.openai_session import Question
    from models.generators.server_facts import short

    content: list[dict[str, Any]] = []
    try:
        for part in texts.user(request.text):
            if isinstance(part, Picture):
                image = _picture(request, part)
                check_proportions(image)
                # In a thread: a large PNG takes a third of a second, and the loop serves all.
                url = await asyncio.to_thread(data_url, image)
                content.append({"type": "image_url", "image_url": {"url": url}})
            else:
                content.append({"type": "text", "text": part})
    except (OSError, ValueError) as failure:
        return Verification(request.key, None, None, "", "engine_error", short(failure))
    question = Question(
        content=content,
        system=texts.system,
        max_tokens=1,
        temperature=0.0,
        top_p=1.0,
        seed=0,
        listed=LISTED,
    )
    return read_answer(request.key, await session.ask(question))


def _picture(request: VerificationRequest, place: Picture) -> Image.Image:
    return request.reference if place is Picture.REFERENCE else request.candidate


def read_answer(key: str, outcome: Outcome) -> Verification:
    """The answer that a server's outcome is."""
    if outcome.status != "ok":
        known: dict[str, VerificationStatus] = {
            name: name for name in ("overlong", "timeout", "rejected")
        }
        status = known.get(outcome.status, "engine_error")
        return Verification(
            key, None, None, "", status, outcome.reason, outcome.attempts, outcome.gave_up
        )
    likeliest = max(outcome.listed, key=lambda token: outcome.listed[token]).strip()
    margin, mass, status = margin_of(outcome.listed)
    reasons = {
        "censored": f"one answer is not among the {len(outcome.listed)} likeliest tokens; the "
        "margin is a bound",
        "off_format": f"neither yes nor no is among the {len(outcome.listed)} likeliest tokens",
    }
    reason = reasons.get(status, "")
    return Verification(key, margin, mass, likeliest, status, reason, outcome.attempts)


def margin_of(listed: Mapping[str, float]) -> tuple[float | None, float, VerificationStatus]:
    """Margin, mass and status of a list of tokens with log-probabilities.

    A side that is not listed is taken at the smallest log-probability of the list, which is at
    least its own: the margin is then the smallest that it can be in size.
    """
    yes, no = (
        _log_sum(value for token, value in listed.items() if is_word(token, word))
        for word in (YES, NO)
    )
    mass = math.exp(_log_sum([yes, no]))
    if yes == no == -math.inf:
        return None, mass, "off_format"
    if -math.inf not in (yes, no):
        return yes - no, mass, "ok"
    least = min(value for value in listed.values() if value > -math.inf)
    return max(yes, least) - max(no, least), mass, "censored"


def _log_sum(values: Iterable[float]) -> float:
    """Logarithm of the sum of exponentials; -inf for none."""
    known = [value for value in values if value > -math.inf]
    most = max(known, default=-math.inf)
    return most + math.log(sum(math.exp(v - most) for v in known)) if known else most
