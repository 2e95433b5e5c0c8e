"""An embedding model behind an OpenAI-compatible server, such as vLLM's pooling runner.

One request a vector: `/v1/embeddings` with messages, as in a chat. The server renders them by the
checkpoint's template; the assistant's header, which its defaults leave out, and the tokenizer's
own special tokens are asked for. Vectors are scaled to length one here, whatever the server does.
A form without a chat cannot be sent. What a server is worth is tested before the first request
(`self_test`).
"""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from models.captioners.chat import check_proportions
from models.captioners.openai_images import data_url
from models.embedders.forms import Form, FormSettings, Mark
from models.embedders.protocol import (
    NO_EMBEDDER,
    ComposedQuery,
    Embedded,
    EmbedderEngine,
)
from models.generators.server_settings import ServerSettings
from models.protocols import EngineUnavailable, Fingerprint

if TYPE_CHECKING:
    from PIL import Image

    from models.generators.openai_session import Outcome, ServerSession

VERSION: Final = 1
"""Raised when the code puts other questions to the server or reads its answers differently."""


class OpenAIEmbedderSettings(EmbedderEngine, ServerSettings):
    """An OpenAI-compatible server of embeddings of chats, such as vLLM with `--runner pooling`."""

    engine: Literal["openai-embedder"] = "openai-embedder"
    model: str = ""
    """The name that the server serves; empty: none."""
    width: int = Field(0, ge=0)
    """Numbers of a vector (2048 for Qwen3-VL-Embedding-2B)."""
    cut: bool = False
    """Ask the server for vectors cut to the width, which it does for models trained for it."""
    form: FormSettings = FormSettings()
    """How queries and targets are put to the model; it must be a chat."""
    same_as: str = ""
    """Directory of the served checkpoint, where it is on this machine: the test at the start then
    compares prompts and vectors with those in process."""
    least_cosine: float = Field(0.999, gt=0, le=1)
    """Least cosine of a vector with that in process: 0.999 for fp32, 0.99 for bf16."""
    skip_self_test: bool = False
    """Believe the server without the test at the start."""

    @property
    def lacking(self) -> str:
        """A model, the width of its vectors, or a chat."""
        if not self.model:
            return NO_EMBEDDER
        if not self.width:
            return "the width of a server's vectors is not known; set embedder.width"
        if not self.form.form.chat:
            return (
                f"the form {self.form.preset} is not a chat, which is all that a server takes: "
                "choose embedder.engine=chat-embedder, or embedder.form.preset=gme or "
                "qwen3-vl-embedding"
            )
        return ""

    @property
    def asked(self) -> str:
        """The instruction of queries."""
        return self.instruction or self.form.form.query_instruction

    @property
    def dim(self) -> int:
        """The width."""
        return self.width

    @property
    def fingerprint(self) -> Fingerprint:
        """Served model, the operator's word on its weights, form, width; no address."""
        return {
            "engine": "openai-server-embedder",
            "engine_version": importlib.metadata.version("openai"),
            "version": VERSION,
            "model": self.model,
            "identity": self.identity,
            "form": self.form.form.fingerprint,
            "width": self.width,
        }

    def load(self) -> OpenAIEmbedder:
        """The embedder; the server is first contacted when the first query comes.

        Raises:
            ValueError: The address or another setting is missing.
        """
        if self.lacking:
            raise ValueError(self.lacking)
        self.require_address()
        return OpenAIEmbedder(self)


class OpenAIEmbedder:
    """Embeds through a server; fulfils `models.embedders.protocol.ComposedEmbedder`."""

    def __init__(self, settings: OpenAIEmbedderSettings) -> None:
        """Remember the settings."""
        self._settings = settings
        self._form: Form = settings.form.form
        self._is_tested = settings.skip_self_test

    def encode_composed(self, queries: Iterable[ComposedQuery], instruction: str) -> Embedded:
        """Vectors (B, d) of length one.

        Raises:
            ServerUnusable: Before the first query, when the server cannot be used at all or fails
                the test of `models.embedders.self_test`.
            EngineUnavailable: The run was given up and no query has a vector.
        """
        self._test()
        return self.embedded(queries, instruction, target=False)

    def encode_targets(self, pictures: Iterable[Image.Image]) -> Embedded:
        """The same of gallery pictures under the form's instruction of targets."""
        self._test()
        shown = (ComposedQuery((picture,), "") for picture in pictures)
        return self.embedded(shown, self._form.target_instruction, target=True)

    def _test(self) -> None:
        if not self._is_tested:
            from models.embedders.self_test import require_sound_server

            require_sound_server(self._settings, self)
            self._is_tested = True

    def embedded(
        self, queries: Iterable[ComposedQuery], instruction: str, *, target: bool
    ) -> Embedded:
        """Vectors without the test at the start."""
        import numpy as np

        from models.generators.background_loop import BackgroundLoop
        from models.generators.openai_session import open_session

        found: dict[int, Outcome] = {}
        settings = self._settings
        with BackgroundLoop() as loop, open_session(loop, settings) as session:

            async def embed(item: tuple[int, ComposedQuery]) -> tuple[int, Outcome]:
                return item[0], await self._ask(session, item[1], instruction, target)

            stream: Iterator[tuple[int, ComposedQuery]] = enumerate(queries)
            found.update(loop.map_bounded(embed, stream, settings.concurrency))
        outcomes = [found[i] for i in range(len(found))]
        lost = next((o.reason for o in outcomes if o.gave_up), "")
        if lost and not any(o.status == "ok" for o in outcomes):
            raise EngineUnavailable(lost)
        vectors = np.zeros((len(outcomes), settings.width), np.float32)
        reasons = []
        for row, outcome in enumerate(outcomes):
            reason = "" if outcome.status == "ok" else f"{outcome.status}: {outcome.reason}"
            if not reason and (width := len(outcome.vector)) != settings.width:
                reason = f"the server's vector has {width} numbers, embedder.width={settings.width}"
            if not reason:
                made = np.array(outcome.vector)
                vectors[row] = made / np.linalg.norm(made)
            reasons.append(reason)
        return Embedded(vectors, tuple(reasons))

    async def _ask(
        self, session: ServerSession, query: ComposedQuery, instruction: str, target: bool
    ) -> Outcome:
        from models.generators.openai_session import Outcome, Question
        from models.generators.server_facts import short

        try:
            # In a thread: a large PNG takes a third of a second, and the loop serves all.
            urls = [await asyncio.to_thread(self._url, picture) for picture in query.pictures]
        except (OSError, ValueError) as failure:
            return Outcome(status="engine_error", reason=short(failure))
        body = self._body(urls, query.text, instruction, target)
        question = Question(
            content=body, api="embeddings", max_tokens=1, temperature=0.0, top_p=1.0, seed=0
        )
        return await session.ask(question)

    def _url(self, picture: Image.Image) -> str:
        check_proportions(picture)
        side = self._form.side
        return data_url(picture.convert("RGB").resize((side, side)) if side else picture)

    def _body(
        self, urls: list[str], text: str, instruction: str, target: bool
    ) -> Mapping[str, Any]:
        """A request's body without the model."""
        form, pictures = self._form, iter(urls)
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": next(pictures)}}
            if isinstance(part, Mark)
            else {"type": "text", "text": part}
            for part in form.user(len(urls), text, instruction, target=target)
        ]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system := form.system_of(instruction):
            messages.insert(0, {"role": "system", "content": system})
        if form.end:  # behind the header, which the begun answer brings along
            messages.append({"role": "assistant", "content": form.end})
        limits = {"min_pixels": form.min_pixels, "max_pixels": form.max_pixels}
        given = {name: value for name, value in limits.items() if value}
        return {
            "messages": messages,
            "add_generation_prompt": form.header and not form.end,
            "continue_final_message": bool(form.end),
            "add_special_tokens": True,
            "encoding_format": "float",
            **({"dimensions": self._settings.width} if self._settings.cut else {}),
            **({"mm_processor_kwargs": given} if given else {}),
        }
