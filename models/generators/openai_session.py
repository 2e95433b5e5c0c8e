"""One run against one OpenAI-compatible server: connections, retries, circuit breaker.

Three layers, each with one job and none retrying what another already retried:

- the openai client retries transport faults (408, 429, 5xx, resets, timeouts) a few times;
- one outer loop (tenacity) waits for the `/health` of a restarted server, and asks again for
  an answer that failed validation;
- a circuit breaker gives up a run whose every request would fail the same way: a wrong key, an
  exhausted quota, another model than the one asked for, or the same failure several times in a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httpx2
import openai
from openai.types import CreateEmbeddingResponse
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from models.generators.answer_reader import lost_its_answer
from models.generators.background_loop import BackgroundLoop
from models.generators.bounded_transport import BoundedTransport, OversizedReply
from models.generators.openai_failures import (
    NO_JSON,
    Breaker,
    CutByStop,
    ServerAway,
    ServerUnusable,
    WrongModel,
    explain,
    is_disconnection,
)
from models.generators.openai_responses import (
    BadAnswer,
    Completed,
    read_embedding,
    read_response,
    read_usage,
)
from models.generators.server_facts import NoThinking, is_model, is_permanent, one_line, short
from models.generators.server_settings import ServerApi, ServerSettings
from models.metering import Spent, current_meter

_NO_KEY: Final = "no-key"  # the client insists on one; servers without authentication ignore it


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question to the server.

    Attributes:
        content: A prompt; for the chat endpoint anything that a user message may hold, for the one
            of embeddings the request's body without the model.
        api: The endpoint: `chat` sends one user message, `completions` plain text; `embeddings`
            asks for a vector.
        system: A system message before it; empty: none.
        listed: How many of the likeliest first tokens are asked for; 0 asks for a text alone.
    """

    content: Any
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    num_answers: int = 1
    stop: tuple[str, ...] = ()
    api: ServerApi | Literal["embeddings"] = "chat"
    system: str = ""
    listed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of a question: (text, finish reason) per answer, or why there are none.

    Attributes:
        model: The model that the reply names; empty where it names none.
        gave_up: Whether the run has been given up, so that no other question is asked either.
        listed: Token -> log-probability of the likeliest first tokens, where they were asked for.
        vector: The embedding, where one was asked for.
    """

    answers: tuple[tuple[str, str], ...] = ()
    status: str = "ok"
    reason: str = ""
    attempts: int = 0
    model: str = ""
    gave_up: bool = False
    listed: Mapping[str, float] = field(default_factory=dict)
    vector: tuple[float, ...] = ()


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The trusted certificates, read once: that takes 30 ms, and each shard has a session."""
    return httpx2.create_ssl_context()


class ServerSession:
    """Puts questions to a server; lives on one event loop."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        limits = httpx2.Limits(max_connections=settings.concurrency + 4)
        timeout = httpx2.Timeout(settings.timeout, connect=settings.connect_seconds)
        connections = httpx2.AsyncHTTPTransport(verify=_trusted(), limits=limits)
        transport = BoundedTransport(connections, settings.timeout)
        self._http = httpx2.AsyncClient(
            transport=transport,
            timeout=timeout,
            event_hooks={"request": [self._count], "response": [self._look_at]},
        )
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=os.environ.get(settings.api_key_env) or _NO_KEY,
            max_retries=settings.transport_retries,
            timeout=timeout,
            http_client=self._http,
        )
        self._recovery = asyncio.Lock()
        self._last_try = asyncio.Lock()
        self._breaker = Breaker(settings.breaker_errors)
        self._seen_at = 0.0
        self._no_thinking = NoThinking()
        self._sends_stops = True

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def check_model(self) -> None:
        """Raise `ServerUnusable` unless the server lists the model."""
        where = self._settings.where
        try:
            served = [model.id for model in (await self._client.models.list()).data]
        except openai.APIConnectionError as failure:
            raise ServerAway(self._settings.away) from failure
        except (openai.AuthenticationError, openai.PermissionDeniedError) as failure:
            raise ServerUnusable(
                f"{where} refuses the API key; set the environment variable "
                f"{self._settings.api_key_env}"
            ) from failure
        except (openai.APIError, OversizedReply, *NO_JSON, TypeError, AttributeError) as failure:
            raise ServerUnusable(
                f"{where} has no usable list of models ({short(failure)}); is base_url the root "
                "of an OpenAI-compatible API? It usually ends in /v1"
            ) from failure
        if self._settings.model not in served:
            raise ServerUnusable(
                f"{where} does not serve {self._settings.model!r}; it serves "
                f"{', '.join(map(repr, served)) or 'nothing'}"
            )

    async def ask(self, question: Question) -> Outcome:
        """The outcome of one question: whatever happens, an outcome."""
        attempts = 0

        async def attempt() -> Outcome:
            nonlocal attempts
            if self._breaker.given_up:
                return Outcome(
                    status="engine_error",
                    reason=self._breaker.given_up,
                    attempts=attempts,
                    gave_up=True,
                )
            attempts += 1
            if attempts == 1:
                current_meter().add(Spent(questions=1))
            if 1 < attempts == self._settings.attempts:
                made = await self._ask_alone(question, attempts)
            else:
                made = await self._ask_once(question, attempts)
            return Outcome(
                answers=made.answers,
                attempts=attempts,
                model=made.model,
                listed=made.listed,
                vector=made.vector,
            )

        outer_loop = AsyncRetrying(
            stop=stop_after_attempt(self._settings.attempts),
            retry=retry_if_exception(lambda e: isinstance(e, BadAnswer) or is_disconnection(e)),
            before_sleep=self._before_new_attempt,
            reraise=True,
        )
        try:
            return await outer_loop(attempt)
        except (openai.APIError, BadAnswer, WrongModel) as failure:
            status, reason = explain(failure)
            gave_up = bool(self._breaker.given_up)
            return Outcome(status=status, reason=reason, attempts=attempts, gave_up=gave_up)

    async def _ask_alone(self, question: Question, attempt: int) -> Completed:
        """A last try, with no other last try in flight.

        If one question kills the server whenever it is asked, the questions that fell with it get
        their answers now; so the next one may start only when the server is back.
        """
        async with self._last_try:
            try:
                return await self._ask_once(question, attempt)
            except openai.APIConnectionError as failure:
                if is_disconnection(failure):
                    await self._recover()
                raise

    async def _ask_once(self, question: Question, attempt: int) -> Completed:
        """Ask once, keep the breaker's books, and validate the answer."""
        try:
            made = await self._completed(question, attempt)
        except (openai.APIError, BadAnswer, WrongModel) as failure:
            self._breaker.note(failure)
            raise
        self._breaker.answered()
        return made

    async def _completed(self, question: Question, attempt: int) -> Completed:
        """A valid answer of the model that was asked for."""
        stop = question.stop if self._sends_stops else ()
        response = await self._metered(question, attempt, stop)
        if question.api == "embeddings":
            made = read_embedding(response)
        else:
            made = read_response(response, question.num_answers, lists=bool(question.listed))
        if question.stop and made.ended_early(lost_its_answer):
            # A stop string may have come first: behind white space, or inside reasoning.
            self._sends_stops = not stop
            if stop and attempt < self._settings.attempts:
                raise CutByStop("a stop string ended the reply before its answer began")
        if not is_model(made.model, self._settings.reply_model or self._settings.model):
            raise WrongModel(
                f"the server answers by the model {made.model!r}, {self._settings.model!r} was "
                "asked for; serve that one, or set reply_model to the name that its replies carry"
            )
        if question.api == "embeddings":
            return made
        if question.listed:
            return made  # the first token may be white space: the list says what came beside it
        return made.require_texts(question.max_tokens)

    async def _metered(self, question: Question, attempt: int, stop: tuple[str, ...]) -> object:
        """The response to a question; the time that it took and its tokens are counted."""
        started = time.monotonic()
        try:
            response = await self._post(question, attempt, stop)
        finally:
            current_meter().add(Spent(waiting_seconds=time.monotonic() - started))
        current_meter().add(read_usage(response))
        return response

    async def _count(self, request: httpx2.Request) -> None:
        """Count what is asked of the model, each time it is sent."""
        if request.method == "POST":
            current_meter().add(Spent(calls=1))

    async def _look_at(self, response: httpx2.Response) -> None:
        """Keep the client from retrying what will not pass, and what nobody waits for."""
        if response.status_code < 400:
            return
        await response.aread()
        try:
            body = response.json()
        except NO_JSON:
            body = response.text
        if is_permanent(response.status_code, body, response.headers.get("Retry-After")):
            self._breaker.give_up(
                f"the server's quota is exhausted (status {response.status_code}): "
                f"{one_line(response.text)}; raise it, or use another key, and run again"
            )
        if self._breaker.given_up:
            response.headers["x-should-retry"] = "false"

    async def _post(self, question: Question, attempt: int, stop: tuple[str, ...]) -> object:
        try:
            return await self._posted(question, attempt, stop)
        except OversizedReply as failure:
            raise BadAnswer(str(failure)) from failure
        except NO_JSON as failure:
            raise BadAnswer(f"the response is not JSON: {short(failure)}") from failure

    async def _posted(self, question: Question, attempt: int, stop: tuple[str, ...]) -> object:
        if question.api == "embeddings":
            body = {"model": self._settings.model, **question.content}
            kind = CreateEmbeddingResponse
            return await self._client.post("/embeddings", cast_to=kind, body=body)
        fields: dict[str, Any] = {
            "model": self._settings.model,
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "top_p": question.top_p,
            "n": question.num_answers,
        }
        if question.temperature > 0:
            # Only where it matters, because vLLM's CPU engine can die of a seed; and another one
            # for each attempt, which would otherwise draw the same invalid answer again.
            fields["seed"] = (question.seed + attempt - 1) % 2**31
        if stop:
            fields["stop"] = list(stop)
        if question.api == "completions":
            return await self._client.completions.create(prompt=question.content, **fields)
        fields["messages"] = [{"role": "user", "content": question.content}]
        if question.system:
            fields["messages"].insert(0, {"role": "system", "content": question.system})
        if question.listed:
            fields |= {"logprobs": True, "top_logprobs": question.listed}
        return await self._chat(fields)

    async def _chat(self, fields: dict[str, Any]) -> object:
        """Ask for an answer without thinking, as far as the server takes the fields for it."""
        while True:
            sent = self._no_thinking
            try:
                return await self._client.chat.completions.create(**fields, extra_body=sent.fields)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as failure:
                fewer = sent.after_refusal(str(failure))
                if fewer is None:
                    raise
                if self._no_thinking == sent:
                    self._no_thinking = fewer

    async def _before_new_attempt(self, state: RetryCallState) -> None:
        """After a disconnection, wait for the server."""
        failure = state.outcome.exception() if state.outcome else None
        if not isinstance(failure, BadAnswer):
            await self._recover()

    async def _recover(self) -> None:
        """Wait until the server is back and still the same; otherwise give up the run."""
        failed_at = time.monotonic()
        async with self._recovery:  # one looks, the others wait for what it finds
            # A look that began before this failure may have seen the server before it fell.
            if self._breaker.given_up or self._seen_at > failed_at:
                return
            deadline = failed_at + self._settings.health_wait_seconds
            try:
                looked_at = time.monotonic()
                while not await self._is_back():
                    if looked_at >= deadline:
                        waited = f"{self._settings.health_wait_seconds:g} s"
                        self._breaker.give_up(f"the server did not come back within {waited}")
                        return
                    await asyncio.sleep(self._settings.health_poll_seconds)
                    looked_at = time.monotonic()
                self._seen_at = looked_at
            except ServerUnusable as unusable:
                self._breaker.give_up(str(unusable))

    async def _is_back(self) -> bool:
        """Whether `/health` and the list of models answer; raises if the model is gone."""
        url = self._settings.base_url.rstrip("/").removesuffix("/v1") + "/health"
        try:
            # A server without /health says 404, and is alive all the same.
            found = await self._http.get(url, timeout=self._settings.connect_seconds)
            if found.status_code >= 500:
                return False
            await self.check_model()
        except (httpx2.HTTPError, OversizedReply, ServerAway):
            return False
        return True


@contextlib.contextmanager
def open_session(loop: BackgroundLoop, settings: ServerSettings) -> Iterator[ServerSession]:
    """A session on `loop` with a server that was seen to serve the model.

    Raises:
        ServerUnusable: When it does not.
    """

    async def start() -> ServerSession:
        return ServerSession(settings)  # on the loop, where its locks and connections belong

    session = loop.run(start())
    try:
        loop.run(session.check_model())
        yield session
    finally:
        loop.run(session.close())
