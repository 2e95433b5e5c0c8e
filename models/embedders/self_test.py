"""Whether a server embeds as its checkpoint does: asked before the first request.

A wrong template or a missing header changes vectors without an error. Four generated pictures and
two texts are embedded: another picture, another text and another instruction must change a query's
vector. Where the checkpoint is on this machine, prompts must have as many tokens as in process,
and vectors must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from models.embedders.protocol import ComposedQuery, Embedded
from models.metering import measuring

if TYPE_CHECKING:
    from models.embedders.openai_embedder import OpenAIEmbedder, OpenAIEmbedderSettings
    from models.protocols import FloatArray

TEXTS: Final = ("make the circle red", "put it on a black background, please")
OTHER_INSTRUCTION: Final = "Find a picture of the same place at night."
MOST_ALIKE: Final = 1 - 1e-7
"""Cosine from which two vectors are the same."""


def require_sound_server(settings: OpenAIEmbedderSettings, embedder: OpenAIEmbedder) -> None:
    """Refuse a server whose vectors do not depend on what it is asked.

    Raises:
        ServerUnusable: Saying in which way it failed.
    """
    from models.generators.openai_failures import ServerUnusable

    queries, form = drawn_queries(), settings.form.form
    targets = [ComposedQuery(query.pictures, "") for query in queries[::2]]
    with measuring() as meter:
        asked = embedder.embedded(queries, settings.asked, target=False)
        shown = embedder.embedded(targets, form.target_instruction, target=True)
    other = embedder.embedded(queries[:1], OTHER_INSTRUCTION, target=False)
    fault = _failed(asked) or _failed(shown) or _failed(other)
    fault = fault or _insensitive(asked.vectors, shown.vectors, other.vectors)
    if not fault and settings.same_as:
        fault = _difference(settings, queries, asked, shown, meter.spent.prompt_tokens)
    if fault:
        raise ServerUnusable(
            f"the server at {settings.base_url} failed the test of an embedder: {fault}. Serve the "
            "model by its own chat template (vllm serve MODEL --runner pooling); "
            "embedder.skip_self_test=true believes it all the same"
        )


def drawn_queries() -> list[ComposedQuery]:
    """Eight queries: four pictures, each under both texts."""
    from PIL import Image

    colours, sizes = ("white", "red", "black"), ((96, 96), (160, 96), (96, 128))
    pictures = [Image.new("RGB", size, colour) for size, colour in zip(sizes, colours, strict=True)]
    board = Image.new("1", (8, 8))
    board.putdata([(i + i // 8) % 2 * 255 for i in range(64)])
    pictures.append(board.resize((96, 96), Image.Resampling.NEAREST).convert("RGB"))
    return [ComposedQuery((picture,), text) for picture in pictures for text in TEXTS]


def _failed(made: Embedded) -> str:
    return next((f"a query got no vector ({reason})" for reason in made.reasons if reason), "")


def _insensitive(asked: FloatArray, shown: FloatArray, other: FloatArray) -> str:
    """What the vectors do not depend on; empty: nothing is wrong."""
    if _alike(shown):
        return "a vector does not depend on the picture"
    if any(_alike(asked[at : at + 2]) for at in range(0, len(asked), 2)):
        return "a query's vector does not depend on the text"
    if _alike(np.stack([asked[0], other[0]])):
        return "a query's vector does not depend on the instruction"
    return ""


def _alike(vectors: FloatArray) -> bool:
    """Whether two of some unit vectors are the same."""
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    np.fill_diagonal(cosines, -1)
    return bool(cosines.max() >= MOST_ALIKE)


def _difference(
    settings: OpenAIEmbedderSettings,
    queries: Sequence[ComposedQuery],
    asked: Embedded,
    shown: Embedded,
    served_tokens: int,
) -> str:
    """How the vectors differ from those in process; empty: they agree."""
    from models.embedders.chat_embedder import ChatEmbedderSettings

    local = ChatEmbedderSettings(
        model=settings.same_as,
        form=settings.form,
        dimensions=settings.width if settings.cut else 0,
    ).load()
    pictures = [query.pictures[0] for query in queries[::2]]
    with measuring() as meter:
        own = local.encode_composed(queries, settings.asked), local.encode_targets(pictures)
    tokens = meter.spent.prompt_tokens
    if served_tokens and served_tokens != tokens:
        return f"its prompts have {served_tokens} tokens, in process they have {tokens}"
    if fault := _failed(own[0]) or _failed(own[1]):
        return f"in process {fault}"
    made = np.concatenate([part.vectors for part in own]).astype(np.float64)
    served = np.concatenate([asked.vectors, shown.vectors])
    if made.shape != served.shape:
        return f"its vectors have {served.shape[1]} numbers, in process they have {made.shape[1]}"
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    worst = float((made * served).sum(axis=1).min())
    if worst < settings.least_cosine:
        return (
            f"vectors differ from those in process: a cosine is {worst:.4f}, less than "
            f"embedder.least_cosine={settings.least_cosine:g}"
        )
    return ""
