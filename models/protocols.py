"""The seams of the models room: plain records and the protocols that engines fulfil.

This module is a leaf. It imports nothing of ours, so that an engine, a task or a test can
depend on a protocol without dragging in torch, transformers or open_clip.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Final,
    Literal,
    Protocol,
    TypeAlias,
    get_args,
    runtime_checkable,
)

from pydantic import BeforeValidator, WithJsonSchema

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from models.verifiers.protocol import Choice, Verification

    FloatArray: TypeAlias = npt.NDArray[np.float32]

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""A value that JSON can hold; fingerprints are made of nothing else."""

Fingerprint: TypeAlias = Mapping[str, Json]
"""Everything that changes an engine's output: model id, weight hashes, dtype, engine version."""


class EngineUnavailable(RuntimeError):
    """An engine cannot be used at all now, for any request."""


SamplingMode: TypeAlias = Literal["nucleus", "greedy", "beam_sample", "beam"]
SAMPLING_MODES: Final[tuple[str, ...]] = get_args(SamplingMode)

PreprocessMode: TypeAlias = Literal["targetpad", "clip"]
PREPROCESS_MODES: Final[tuple[str, ...]] = get_args(PreprocessMode)

TORCH_DTYPES: Final = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Name of a precision here -> torch's name, which identities and users' older files hold."""

DTYPES: Final = tuple(TORCH_DTYPES)


def _short_dtype(name: object) -> object:
    return next((short for short, long in TORCH_DTYPES.items() if name == long), name)


def _offered(*names: str) -> WithJsonSchema:
    """Names in forms, torch's own behind ours: stored schedules may hold either."""
    return WithJsonSchema({"type": "string", "enum": [*names, *TORCH_DTYPES.values()]})


Dtype: TypeAlias = Annotated[
    Literal["fp32", "bf16", "fp16"], BeforeValidator(_short_dtype), _offered(*DTYPES)
]
"""A precision; settings read torch's names too."""

AutoDtype: TypeAlias = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    BeforeValidator(_short_dtype),
    _offered("auto", *DTYPES),
]
"""A precision, or `auto`: bf16 on a GPU and fp32 elsewhere."""

_DEVICE: Final = re.compile(r"auto|(cpu|cuda|hpu|mps|mtia|npu|xla|xpu)(:\d+)?")
"""Some of torch's devices come with plug-ins, which it loads by itself."""


def _known_device(name: object) -> object:
    if isinstance(name, str) and not _DEVICE.fullmatch(name):
        raise ValueError("a device is auto, cpu, cuda, cuda:1, mps or another of torch's")
    return name


DeviceName: TypeAlias = Annotated[str, BeforeValidator(_known_device)]
"""Where an engine runs; `auto` is the GPU if there is one. Whether it is there is asked later."""


@dataclass(frozen=True, slots=True)
class TextRequest:
    """One prompt for a text generator.

    Attributes:
        key: The caller's name for the request; comes back on the reply.
        prompt: The complete prompt, already rendered.
        max_new_tokens: Upper bound on generated tokens.
        temperature: 0 means greedy decoding.
        top_p: Nucleus mass kept when sampling.
        seed: Seed of this request's own random stream.
        stop: Strings that end the reply; they are not part of it.
    """

    key: str
    prompt: str
    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextReply:
    """The outcome of one `TextRequest`.

    Attributes:
        key: The request's key.
        text: The raw reply; empty when the status is not `ok`.
        status: `ok`, `engine_error`, `timeout`, `rejected` or `overlong`.
        reason: Why, in words; empty when the status is `ok`.
        finish_reason: The end of generation as the engine names it (`stop`, `length`, ...).
        attempts: How many times the engine was asked.
        answered_by: The model that a server's reply names; empty for other engines.
        gave_up: Whether the engine has given up all that is still to be asked.
    """

    key: str
    text: str
    status: str = "ok"
    reason: str = ""
    finish_reason: str = ""
    attempts: int = 1
    answered_by: str = ""
    gave_up: bool = False


@dataclass(frozen=True, slots=True)
class CaptionSampling:
    """How captions are drawn from a captioner.

    Every (image key, sample index) has its own random stream, so neither the batch nor the
    shard an image falls in changes its captions.

    Attributes:
        n: Captions per image (N of the CVSI paper).
        top_p: Nucleus mass; used by the sampling modes only.
        top_k: Tokens that the nucleus is taken from, 0 for all; used by the sampling modes only.
        temperature: Softmax temperature; used by the sampling modes only.
        max_new_tokens: Upper bound on tokens per caption.
        mode: `nucleus`: n independent samples. `greedy`: n must be 1. `beam_sample`: one search
            with n beams that samples. `beam`: the n best of a search with `beams` beams.
        beams: Beams of the mode `beam`.
        seed: Seed of the whole table of captions.
        prompt: Text prompt given to the captioner with the image, often empty.
    """

    n: int = 15
    top_p: float = 0.9
    temperature: float = 1.0
    max_new_tokens: int = 30
    mode: SamplingMode = "nucleus"
    seed: int = 0
    prompt: str = ""
    top_k: int = 0
    beams: int = 5

    def __post_init__(self) -> None:
        """Refuse values that no captioner can honour."""
        rules = (
            (self.mode in SAMPLING_MODES, f"mode is one of {', '.join(SAMPLING_MODES)}"),
            (self.n >= 1, "n is at least 1"),
            (self.mode != "greedy" or self.n == 1, "greedy decoding gives one caption, so n is 1"),
            (0.0 < self.top_p <= 1.0, "top_p lies in (0, 1]"),
            (self.temperature > 0.0, "temperature is positive; greedy captions have none"),
            (self.max_new_tokens >= 1, "max_new_tokens is at least 1"),
            (self.top_k >= 0, "top_k is at least 0, which takes all tokens"),
            (self.mode != "beam" or self.beams >= self.n, "beams are at least n"),
        )
        broken = [rule for holds, rule in rules if not holds]
        if broken:
            raise ValueError(f"{self!r} breaks: {'; '.join(broken)}")

    @property
    def fingerprint(self) -> Fingerprint:
        """The values that change a caption; `top_k` and `beams` only where they are used."""
        unused = {"top_k": not self.top_k, "beams": self.mode != "beam"}
        return {k: v for k, v in asdict(self).items() if not unused.get(k, False)}


@dataclass(frozen=True, slots=True)
class CaptionReply:
    """The captions of one image, or why there are none.

    Attributes:
        key: The image's key as given by the caller.
        captions: `CaptionSampling.n` captions in sample order; empty when the status is not `ok`.
        status: `ok` or the kind of failure.
        reason: Why, in words; empty when the status is `ok`.
        gave_up: Whether the captioner has given up all that is still to be captioned.
    """

    key: str
    captions: tuple[str, ...]
    status: str = "ok"
    reason: str = ""
    gave_up: bool = False


@dataclass(frozen=True, slots=True)
class EditRequest:
    """One image to edit.

    Attributes:
        key: The caller's name for the request; comes back on the reply.
        image: The reference image, RGB.
        text: What is to be changed.
        seed: Seed of this request's own noise.
    """

    key: str
    image: Image.Image
    text: str
    seed: int = 0


@dataclass(frozen=True, slots=True)
class EditReply:
    """The edited image of one `EditRequest`, or why there is none.

    Attributes:
        key: The request's key.
        picture: The edited image, RGB; None when the status is not `ok`.
        status: `ok` or the kind of failure.
        reason: Why, in words; empty when the status is `ok`.
    """

    key: str
    picture: Image.Image | None
    status: str = "ok"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SplicedText:
    """A text with a hole for one pseudo token: `before`, the token, `after`.

    The token is put in by position (`models.encoders.text_tokens`), so no placeholder character is
    needed and a `$` that a user typed stays a `$`.
    """

    before: str
    after: str = ""


def require_engine(replies: Iterable[TextReply | CaptionReply | Verification | Choice]) -> None:
    """Refuse replies none of which has an answer because the engine gave up.

    They are worth no rows: everything is asked again when the cause is mended.

    Raises:
        EngineUnavailable: With the engine's reason.
    """
    known: list[TextReply | CaptionReply | Verification | Choice] = list(replies)
    gave_up = next((reply for reply in known if reply.gave_up), None)
    if gave_up and not any(reply.status == "ok" for reply in known):
        raise EngineUnavailable(gave_up.reason)


@runtime_checkable
class TextGenerator(Protocol):
    """A language model that answers prompts, wherever it runs."""

    def generate(self, requests: Iterable[TextRequest]) -> Iterator[TextReply]:
        """Answer every request exactly once, in any order, as a stream.

        Raises:
            EngineUnavailable: Before the first answer; from then on failures are replies.
        """
        ...


@runtime_checkable
class Captioner(Protocol):
    """A model that describes images."""

    def caption(
        self, images: Iterable[tuple[str, Image.Image]], sampling: CaptionSampling
    ) -> Iterator[CaptionReply]:
        """Caption every (key, image) exactly once, in any order, as a stream."""
        ...


@runtime_checkable
class ImageEditor(Protocol):
    """A model that changes an image as a text asks."""

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[EditReply]:
        """Answer every request exactly once, in any order, as a stream."""
        ...


@runtime_checkable
class ImageTextEncoder(Protocol):
    """A two-tower model with a joint space (CLIP and its relatives).

    All features are float32 and *not* normalised; fusion decides where to normalise.
    """

    @property
    def dim(self) -> int:
        """Width d of the joint space."""
        ...

    @property
    def token_width(self) -> int:
        """Width dt of the text tower's token embeddings, the space of pseudo tokens."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """The part of the specification of every table made from the features."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> FloatArray:
        """Encode RGB images; returns (B, d)."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """Encode texts; returns (B, d) in the order given."""
        ...

    def encode_spliced(self, texts: Sequence[SplicedText], tokens: FloatArray) -> FloatArray:
        """Encode texts that carry one pseudo token each; tokens (B, dt), returns (B, d)."""
        ...
