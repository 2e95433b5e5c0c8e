"""Captions from a vision model behind an OpenAI-compatible server (LLaVA on vLLM, for example).

The image travels inside the request as a data URL, so the server needs no access to files and
fetches nothing. All N captions of an image are one request: its prefix is computed once.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.metadata
import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, Literal

from models.captioners.chat import check_proportions, prompt_fingerprint, question
from models.captioners.seeds import stream_seed
from models.generators.answer_reader import read_whole
from models.generators.server_settings import ServerSettings
from models.protocols import CaptionReply, CaptionSampling, Fingerprint

if TYPE_CHECKING:
    from PIL import Image

    from models.generators.openai_session import ServerSession

VERSION: Final = 2
"""Raised when the code puts other questions to the server or reads its answers differently."""


class OpenAIImagesSettings(ServerSettings):
    """An OpenAI-compatible server that takes images, such as vLLM."""

    engine: Literal["openai"] = "openai"

    @property
    def fingerprint(self) -> Fingerprint:
        """Served model, the operator's word on its weights, prompt and code version; no address."""
        return {
            "engine": "openai-server-images",
            "engine_version": importlib.metadata.version("openai"),
            "version": VERSION,
            "model": self.model,
            "identity": self.identity,
            **prompt_fingerprint(),
        }

    def load(self) -> OpenAIImageCaptioner:
        """The captioner; the server is first contacted when the first image comes.

        Raises:
            ValueError: The address is missing.
        """
        self.require_address()
        return OpenAIImageCaptioner(self)


class OpenAIImageCaptioner:
    """Captions images through a server; fulfils `models.protocols.Captioner`."""

    def __init__(self, settings: OpenAIImagesSettings) -> None:
        """Remember the settings."""
        self._settings = settings

    def caption(
        self, images: Iterable[tuple[str, Image.Image]], sampling: CaptionSampling
    ) -> Iterator[CaptionReply]:
        """Caption every (key, image) exactly once, as answers arrive.

        Raises:
            ServerUnusable: Before the first image, when the server cannot be used at all.
            ValueError: For beams and a limit on tokens, which the OpenAI protocol does not have.
        """
        if sampling.mode in ("beam_sample", "beam") or sampling.top_k:
            raise ValueError(
                "a server of OpenAI's protocol has neither beams nor top_k: set "
                "cvsi.caption_sampling=nucleus, single_caption=greedy and captions.top_k=0"
            )
        from models.generators.background_loop import BackgroundLoop
        from models.generators.openai_session import open_session

        with BackgroundLoop() as loop, open_session(loop, self._settings) as session:

            async def caption(item: tuple[str, Image.Image]) -> CaptionReply:
                return await _caption(session, *item, sampling)

            yield from loop.map_bounded(caption, images, self._settings.concurrency)


async def _caption(
    session: ServerSession, key: str, image: Image.Image, sampling: CaptionSampling
) -> CaptionReply:
    from models.generators.openai_session import Question
    from models.generators.server_facts import short

    try:
        check_proportions(image)
        # In a thread: a large PNG takes a third of a second, and the loop serves all requests.
        url = await asyncio.to_thread(data_url, image)
    except (OSError, ValueError) as failure:
        return CaptionReply(key, (), "engine_error", short(failure))
    content = [
        {"type": "text", "text": question(sampling)},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    outcome = await session.ask(
        Question(
            content=content,
            max_tokens=sampling.max_new_tokens,
            temperature=0.0 if sampling.mode == "greedy" else sampling.temperature,
            top_p=sampling.top_p,
            seed=stream_seed("caption", sampling.seed, key),
            num_answers=sampling.n,
        )
    )
    if outcome.status != "ok":
        return CaptionReply(key, (), outcome.status, outcome.reason, outcome.gave_up)
    readings = [read_whole(text) for text, _ in outcome.answers]
    if fault := next((reading.fault for reading in readings if reading.fault), ""):
        return CaptionReply(key, (), "rejected", fault)
    return CaptionReply(key, tuple(" ".join(reading.text.split()) for reading in readings))


def data_url(image: Image.Image) -> str:
    """The image as lossless PNG, so that the pixels described are the pixels stored."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
