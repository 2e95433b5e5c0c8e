"""Fingerprint and width of a backbone, from its files where it has some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from models.checkpoints import file_sha256
from models.encoders.backbone_files import (
    RANDOM,
    EncoderNotFound,
    architecture,
    encoder_fingerprint,
    encoder_identity,
    forced_activation,
    hub_file_on_disk,
    preprocess_fingerprint,
    preprocess_settings,
    require_known,
    weights_file,
    weights_here,
)
from models.encoders.spec import CONFIG_FILE, EncoderSpec, schema_and_place
from models.encoders.tokenizer_files import tokenizer_sha256

if TYPE_CHECKING:
    from models.protocols import Fingerprint


_OPEN_CLIP_WIDTH: Final = 512
"""Width that open_clip takes where a configuration names none."""


READ_AT: Final = ("argmax", "eos", "last")
"""open_clip's poolings of a text that read it at one position known beforehand."""
CLASS_TOKEN: Final = "its text tower appends a class token to the words"


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """Facts of a backbone from its files alone.

    Attributes:
        fingerprint: As the loaded encoder's.
        dim: Width d of the joint space.
    """

    fingerprint: Fingerprint
    dim: int


def encoder_is_here(spec: EncoderSpec) -> bool:
    """Whether a backbone's weights are on this machine; where not, a hub that answers has them.

    The configuration of a repository is fetched, since it is small.

    Raises:
        EncoderNotFound: As `encoder_facts`: no such backbone, tag, configuration or file.
    """
    require_known(spec)
    forced_activation(spec)
    is_here = weights_here(spec) is not None or spec.pretrained.startswith(RANDOM)
    if is_here:
        architecture(spec)
    return is_here


def token_width(spec: EncoderSpec) -> int:
    """Width dt of the text tower's word embeddings, by the backbone's configuration.

    Raises:
        EncoderNotFound: As `encoder_facts`.
    """
    return int(architecture(spec)["text_cfg"].get("width", _OPEN_CLIP_WIDTH))


def why_no_pseudo_tokens(spec: EncoderSpec) -> str:
    """Why a backbone takes no pseudo tokens, by its configuration, in words.

    Empty where it takes them, where the loaded tokenizer alone can tell
    (`text_tower.why_unsupported`), and where no such backbone is on this machine.
    """
    schema, place = schema_and_place(spec.source)
    if schema == "hf-hub" and hub_file_on_disk(place, CONFIG_FILE) is None:
        return ""
    try:
        require_known(spec)
        text = architecture(spec)["text_cfg"]
    except EncoderNotFound:
        return ""
    found = []
    if text.get("hf_model_name"):
        found.append("its text tower is one of transformers'")
    if text.get("embed_cls"):
        found.append(CLASS_TOKEN)
    if (pool := text.get("pool_type", "argmax")) not in READ_AT:
        found.append(pooled_elsewhere(pool))
    return f"{spec.name} takes no pseudo tokens: {'; '.join(found)}" if found else ""


def pooled_elsewhere(pool: str | None) -> str:
    return f"its text feature is pooled by {pool!r}, not read at one position of a text"


def encoder_facts(spec: EncoderSpec) -> EncoderFacts:
    """Fingerprint and width of a backbone; its files are hashed, no network is built.

    An untrained network has no file: it is made, to be told apart by its weights.

    Raises:
        EncoderNotFound: As `models.encoders.loading.load_encoder`, for what the files tell.
    """
    quick_gelu = forced_activation(spec)
    weights = weights_file(spec)
    if weights is None:
        from models.encoders.loading import load_encoder

        encoder = load_encoder(spec)
        return EncoderFacts(encoder.fingerprint, encoder.dim)
    identity = encoder_identity(
        spec, quick_gelu, weights, file_sha256(weights), tokenizer_sha256(spec)
    )
    preprocess = preprocess_fingerprint(spec.preprocess, spec.pad_ratio, preprocess_settings(spec))
    return EncoderFacts(
        encoder_fingerprint(identity, preprocess), int(architecture(spec)["embed_dim"])
    )
