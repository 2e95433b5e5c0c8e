"""CompoDiff's denoisers: facts of their folders, and the denoiser once loaded.

A finished run reads only the folder. Weights are loaded when rows must be made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.checkpoints import UnusableCheckpoint, identity_or_load, model_name
from models.compodiff.folder import CompoDiffError, CompoDiffFolder, read_folder
from models.compodiff.settings import CompoDiffSettings
from models.encoders.spec import EncoderSpec
from models.retrieval.systems.compodiff import NO_DENOISER
from storage.locations.location import Location
from storage.tables.keys import content_key
from tasks.engines import (
    backbone_name,
    encoder_dim,
    encoder_fingerprint,
    fingerprint_name,
    load_encoder,
)
from tasks.networks import on_this_machine, trained_on, why_not_zero_shot
from tasks.published_files import require_as_published

if TYPE_CHECKING:
    from models.protocols import FloatArray

    Queries = Callable[[FloatArray, Sequence[str]], FloatArray]


def denoiser_problem(settings: CompoDiffSettings, encoder: EncoderSpec) -> str:
    """Why a backbone has no denoiser to use; empty where it has one."""
    if not settings.checkpoint:
        return NO_DENOISER
    if not Location(settings.checkpoint).exists("config.json"):
        return f"{settings.checkpoint} holds no denoiser (compodiff.checkpoint); {NO_DENOISER}"
    try:
        _fitting(settings.checkpoint, encoder)
    except UnusableCheckpoint as error:
        return str(error)
    return ""


def denoiser_folder(checkpoint: str) -> CompoDiffFolder:
    """Facts of a denoiser from its folder; no weights are loaded.

    Raises:
        CompoDiffError: the folder holds none.
        DamagedFile: its files are not those that its training published.
    """
    folder = on_this_machine(checkpoint)
    require_as_published(checkpoint, folder)
    return read_folder(folder)


@dataclass(frozen=True)
class DenoiserFacts:
    """Facts of a denoiser for the records of its results.

    Attributes:
        not_zero_shot: Why they must not be called zero-shot; empty where they may be.
        trained_on: What it was trained on, in words.
    """

    not_zero_shot: str
    trained_on: str


def denoiser_facts(checkpoint: str) -> DenoiserFacts:
    """What a denoiser's folder says of its training."""
    provenance = denoiser_folder(checkpoint).provenance
    return DenoiserFacts(why_not_zero_shot(provenance), trained_on(provenance))


def compodiff_identity(settings: CompoDiffSettings, encoder: EncoderSpec) -> dict[str, Any]:
    """Everything about a denoiser that its query features depend on.

    Raises:
        CompoDiffError: there is none, or it reads the features of another backbone.
    """
    folder = _fitting(settings.checkpoint, encoder)
    own = {"denoiser": dict(folder.fingerprint), "sampling": settings.sampling.model_dump()}
    return {**own, "text_model": _text_model(settings.text_model)} if folder.released else own


def sampler(settings: CompoDiffSettings, encoder: EncoderSpec) -> Queries:
    """From features of references and from texts to sampled query features."""
    identity = content_key(compodiff_identity(settings, encoder))
    loaded = _loaded(settings.checkpoint, settings.text_model, encoder, identity)
    return lambda images, texts: loaded.queries(images, texts, settings.sampling)


@functools.lru_cache(maxsize=1)
def _loaded(checkpoint: str, text_model: str, encoder: EncoderSpec, identity: str) -> Any:
    """A denoiser in memory; with another `identity` its files are read again."""
    from models.compodiff.checkpoint import load_denoiser
    from models.compodiff.encoder import CompoDiffEncoder
    from models.compodiff.token_states import BackboneStates, TransformersStates
    from models.devices import pick_device

    device = pick_device(encoder.device)
    loaded = load_denoiser(on_this_machine(checkpoint))
    if loaded.folder.released:
        return CompoDiffEncoder(loaded, TransformersStates(text_model, device), device)
    return CompoDiffEncoder(loaded, BackboneStates(load_encoder(encoder).tower), device)


def _fitting(checkpoint: str, encoder: EncoderSpec) -> CompoDiffFolder:
    folder = denoiser_folder(checkpoint)
    own, base = encoder_fingerprint(encoder), folder.backbone
    if base is not None and base["weights_sha256"] != own["weights_sha256"]:
        raise CompoDiffError(
            f"the denoiser at {checkpoint} reads the features of {fingerprint_name(base)} and not "
            f"those of {backbone_name(encoder)}; train one on this backbone, or set encoder.name"
        )
    if folder.dim != encoder_dim(encoder):
        raise CompoDiffError(
            f"the denoiser at {checkpoint} reads features of width {folder.dim}, and "
            f"{backbone_name(encoder)} gives {encoder_dim(encoder)}; the released one needs "
            "ViT-L-14 with tag openai"
        )
    return folder


@functools.lru_cache(maxsize=4)
def _text_model(model: str) -> Mapping[str, Any]:
    def load() -> object:
        from transformers import CLIPTextModel

        return CLIPTextModel.from_pretrained(model)

    files = identity_or_load(model, None, load)
    return {"model": model_name(model, files), "files": content_key(dict(files))}
