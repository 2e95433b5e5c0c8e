"""A vision-language model behind an OpenAI-compatible server that answers yes or no.

One chat request a pair or a grid, with the same parts in the same order as in process, one token,
and the 20 likeliest tokens of its position (the protocol's limit). The pictures travel inside the
request as data URLs. Where one of the two answers is not among the 20, its log-probability is at
most the smallest of them, and the margin is a bound (`censored`); where neither is, the status is
`off_format`.

Scoring endpoints (`/score`, `/rerank`) are not used: served Qwen3-VL re-rankers gave about 0.5 for
everything there. What a server is worth is tested before the first request (`self_test`).
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import itertools
import math
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from pydantic import Field

from models.captioners.chat import check_proportions
from models.captioners.openai_images import data_url
from models.generators.reply_packaging import unpacked
from models.generators.server_facts import short
from models.generators.server_settings import ServerSettings
from models.protocols import Fingerprint
from models.verifiers.answer_tokens import NO, YES, is_word
from models.verifiers.choices import log_sum, read_listed, read_order
from models.verifiers.prompt import Picture, RoleTexts, VerifierPrompts
from models.verifiers.protocol import (
    MODES,
    Choice,
    GridRequest,
    Mode,
    Verification,
    VerificationRequest,
    VerificationStatus,
)

if TYPE_CHECKING:
    from PIL import Image

    from models.generators.openai_session import Outcome, Question, ServerSession

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")

VERSION: Final = 1
"""Raised when the code puts other questions to the server or reads its answers differently."""
ORDER_TOKENS: Final = 160
"""Most tokens of an order in text: 26 marks with signs between them take about 80."""
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
    modes: tuple[Mode, ...] = Field(MODES, min_length=1)
    """Ways of asking that the served model can answer; another one is refused (`verify.mode`)."""

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
        self._is_tested = self._reads_grids = settings.skip_self_test

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

    def choose(self, requests: Iterable[GridRequest]) -> Iterator[Choice]:
        """Answer every request exactly once, as answers arrive.

        Raises:
            ServerUnusable: Before the first request, when the server cannot be used at all or
                its answers do not depend on the grid.
        """
        if not self._reads_grids:
            from models.verifiers.self_test import require_grid_reader

            stream = iter(requests)
            first = next(stream, None)
            if first is None:
                return
            require_grid_reader(self._settings, self._choices, first.answer)
            self._reads_grids = True
            requests = itertools.chain([first], stream)
        yield from self._choices(requests)

    def _answers(self, requests: Iterable[VerificationRequest]) -> Iterator[Verification]:
        return self._asked(requests, _verify)

    def _choices(self, requests: Iterable[GridRequest]) -> Iterator[Choice]:
        return self._asked(requests, _choose)

    def _asked(
        self,
        requests: Iterable[_Request],
        ask: Callable[[ServerSession, RoleTexts, _Request], Coroutine[Any, Any, _Answer]],
    ) -> Iterator[_Answer]:
        from models.generators.background_loop import BackgroundLoop
        from models.generators.openai_session import open_session

        with BackgroundLoop() as loop, open_session(loop, self._settings) as session:

            async def answered(request: _Request) -> _Answer:
                return await ask(session, self._texts, request)

            yield from loop.map_bounded(answered, requests, self._settings.concurrency)


async def _verify(
    session: ServerSession, texts: RoleTexts, request: VerificationRequest
) -> Verification:
    pictures = {Picture.REFERENCE: request.reference, Picture.CANDIDATE: request.candidate}
    try:
        question = await _question(texts, request.text, pictures)
    except (OSError, ValueError) as failure:
        return Verification(request.key, None, None, "", "engine_error", short(failure))
    return read_answer(request.key, await session.ask(question))


async def _choose(session: ServerSession, texts: RoleTexts, request: GridRequest) -> Choice:
    pictures = {Picture.REFERENCE: request.reference, Picture.CANDIDATE: request.grid}
    in_text = request.answer == "order"
    try:
        question = await _question(
            texts,
            request.text,
            pictures,
            max_tokens=ORDER_TOKENS if in_text else 1,
            listed=0 if in_text else LISTED,
        )
    except (OSError, ValueError) as failure:
        return Choice(request.key, (), None, "", "engine_error", short(failure))
    return read_choice(request, await session.ask(question))


async def _question(
    texts: RoleTexts,
    text: str,
    pictures: Mapping[Picture, Image.Image],
    max_tokens: int = 1,
    listed: int = LISTED,
) -> Question:
    """The request to a server.

    Raises:
        OSError: A picture cannot be encoded.
        ValueError: A picture is too elongated.
    """
    from models.generators.openai_session import Question

    content: list[dict[str, Any]] = []
    for part in texts.user(text):
        if isinstance(part, Picture):
            image = pictures[part]
            check_proportions(image)
            # In a thread: a large PNG takes a third of a second, and the loop serves all.
            url = await asyncio.to_thread(data_url, image)
            content.append({"type": "image_url", "image_url": {"url": url}})
        else:
            content.append({"type": "text", "text": part})
    return Question(
        content=content,
        system=texts.system,
        max_tokens=max_tokens,
        temperature=0.0,
        top_p=1.0,
        seed=0,
        listed=listed,
    )


def read_answer(key: str, outcome: Outcome) -> Verification:
    """The answer that a server's outcome is."""
    if outcome.status != "ok":
        status = _status_of(outcome)
        return Verification(
            key, None, None, "", status, outcome.reason, outcome.attempts, outcome.gave_up
        )
    likeliest = _likeliest(outcome)
    margin, mass, status = margin_of(outcome.listed)
    reasons = {
        "censored": f"one answer is not among the {len(outcome.listed)} likeliest tokens; the "
        "margin is a bound",
        "off_format": f"neither yes nor no is among the {len(outcome.listed)} likeliest tokens",
    }
    reason = reasons.get(status, "")
    return Verification(key, margin, mass, likeliest, status, reason, outcome.attempts)


def read_choice(request: GridRequest, outcome: Outcome) -> Choice:
    """The answer about a grid that a server's outcome is."""
    key, tried = request.key, outcome.attempts
    if outcome.status != "ok":
        status = _status_of(outcome)
        return Choice(key, (), None, "", status, outcome.reason, tried, outcome.gave_up)
    if request.answer == "order":
        (text, _), *_ = outcome.answers
        (margins, status, reason), mass = read_order(unpacked(text)[0], request.marks), None
        return Choice(key, margins, mass, text.strip(), status, reason, tried)
    (margins, status, reason), share = read_listed(outcome.listed, request.marks)
    return Choice(key, margins, share, _likeliest(outcome), status, reason, tried)


def _status_of(outcome: Outcome) -> VerificationStatus:
    """The status of a question without an answer."""
    known: dict[str, VerificationStatus] = {
        name: name for name in ("overlong", "timeout", "rejected")
    }
    return known.get(outcome.status, "engine_error")


def _likeliest(outcome: Outcome) -> str:
    return max(outcome.listed, key=lambda token: outcome.listed[token]).strip()


def margin_of(listed: Mapping[str, float]) -> tuple[float | None, float, VerificationStatus]:
    """Margin, mass and status of a list of tokens with log-probabilities.

    A side that is not listed is taken at the smallest log-probability of the list, which is at
    least its own: the margin is then the smallest that it can be in size.
    """
    yes, no = (
        log_sum([value for token, value in listed.items() if is_word(token, word)])
        for word in (YES, NO)
    )
    mass = math.exp(log_sum([yes, no]))
    if yes == no == -math.inf:
        return None, mass, "off_format"
    if -math.inf not in (yes, no):
        return yes - no, mass, "ok"
    least = min(value for value in listed.values() if value > -math.inf)
    return max(yes, least) - max(no, least), mass, "censored"
