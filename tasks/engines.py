"""Engines by their settings, loaded once a process and only when rows must be made.

Fingerprints are asked for far more often than engines are used: a rerun that reuses everything
must not load a seven-billion-parameter captioner to find out. They are computed from files, once a
process.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.encoders import facts
from models.verifiers.settings import VerifierSettings
from storage.locations.location import Location
from tasks.published_files import require_as_published
from tasks.settings import (
    CaptionerSettings,
    EditorSettings,
    EmbedderSettings,
    GeneratorSettings,
)

if TYPE_CHECKING:
    from models.embedders.protocol import ComposedEmbedder
    from models.encoders.open_clip import OpenClipEncoder
    from models.encoders.spec import EncoderSpec
    from models.protocols import Captioner, Fingerprint, ImageEditor, TextGenerator
    from models.textual_inversion.network import MappingNetwork
    from models.textual_inversion.palavra import PalavraNetwork
    from models.verifiers.protocol import Verifier


@functools.lru_cache(maxsize=2)
def load_encoder(spec: EncoderSpec) -> OpenClipEncoder:
    """The image-text encoder of a spec."""
    from models.encoders.loading import load_encoder as load

    return load(spec)


@functools.lru_cache(maxsize=1)
def load_captioner(settings: CaptionerSettings) -> Captioner:
    """The captioner of some settings."""
    return settings.load()


@functools.lru_cache(maxsize=1)
def load_generator(settings: GeneratorSettings) -> TextGenerator:
    """The text generator of some settings."""
    return settings.load()


@functools.lru_cache(maxsize=1)
def load_editor(settings: EditorSettings) -> ImageEditor:
    """The image editor of some settings."""
    return settings.load()


@functools.lru_cache(maxsize=1)
def load_verifier(settings: VerifierSettings) -> Verifier:
    """The verifier of some settings."""
    return settings.load()


@functools.lru_cache(maxsize=1)
def load_embedder(settings: EmbedderSettings) -> ComposedEmbedder:
    """The embedding model of some settings."""
    return settings.load()


@functools.lru_cache(maxsize=4)
def load_mapping(checkpoint: str) -> MappingNetwork:
    """The mapping network of a checkpoint: a local path, or a folder on S3."""
    from models.textual_inversion.network import load_mapping as load

    with _on_disk(checkpoint) as place:
        return load(place)


@functools.lru_cache(maxsize=2)
def load_palavra(checkpoint: str) -> PalavraNetwork:
    """The PALAVRA-style network of a folder, local or on S3."""
    from models.textual_inversion.palavra_files import load_palavra as load

    with _on_disk(checkpoint) as place:
        return load(place)


@functools.lru_cache(maxsize=16)
def palavra_fingerprint(checkpoint: str) -> Fingerprint:
    """The identity of a PALAVRA-style network."""
    from models.textual_inversion.palavra_files import palavra_fingerprint as read

    with _on_disk(checkpoint) as place:
        return read(place)


@contextmanager
def _on_disk(checkpoint: str) -> Iterator[str]:
    """A path of the mapping network on this machine; one on S3 is copied for the while."""
    if not checkpoint.startswith("s3://"):
        require_as_published(checkpoint, Path(checkpoint))
        yield checkpoint
        return
    source = Location(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("config.json", "model.safetensors"):
            Path(folder, name).write_bytes(source.read_bytes(name))
        require_as_published(checkpoint, Path(folder))
        yield folder


@functools.lru_cache(maxsize=16)
def encoder_facts(spec: EncoderSpec) -> facts.EncoderFacts:
    """Fingerprint and width of an encoder, from its files."""
    return facts.encoder_facts(spec)


def encoder_fingerprint(spec: EncoderSpec) -> Fingerprint:
    """The identity of an encoder's features."""
    return encoder_facts(spec).fingerprint


def encoder_dim(spec: EncoderSpec) -> int:
    """Width of an encoder's joint space."""
    return encoder_facts(spec).dim


def why_no_pseudo_tokens(spec: EncoderSpec) -> str:
    """Why a backbone takes no pseudo tokens, by its configuration; empty where it may."""
    return facts.why_no_pseudo_tokens(spec)


def token_width(spec: EncoderSpec) -> int:
    """Width of the space of an encoder's pseudo tokens."""
    return facts.token_width(spec)


@functools.lru_cache(maxsize=16)
def captioner_fingerprint(settings: CaptionerSettings) -> Fingerprint:
    """The identity of a captioner's captions."""
    return settings.fingerprint


@functools.lru_cache(maxsize=16)
def generator_fingerprint(settings: GeneratorSettings) -> Fingerprint:
    """The identity of a text generator's answers."""
    return settings.fingerprint


@functools.lru_cache(maxsize=16)
def editor_fingerprint(settings: EditorSettings) -> Fingerprint:
    """The identity of an image editor's pictures."""
    return settings.fingerprint


@functools.lru_cache(maxsize=16)
def verifier_fingerprint(settings: VerifierSettings) -> Fingerprint:
    """The identity of a verifier's verdicts."""
    return settings.fingerprint


@functools.lru_cache(maxsize=16)
def embedder_facts(settings: EmbedderSettings) -> tuple[Fingerprint, int]:
    """The identity of an embedding model's vectors, and their width."""
    return settings.fingerprint, settings.dim


@functools.lru_cache(maxsize=16)
def mapping_fingerprint(checkpoint: str) -> Mapping[str, Any]:
    """The identity of a mapping network's pseudo tokens."""
    from models.textual_inversion.fingerprint import mapping_fingerprint as read

    with _on_disk(checkpoint) as place:
        return read(place)


def backbone_name(spec: EncoderSpec) -> str:
    """A short name of a backbone for tables."""
    return fingerprint_name(encoder_fingerprint(spec))


def fingerprint_name(found: Fingerprint) -> str:
    """The name of a backbone by its fingerprint: model and weights, or a directory's hash."""
    if found["model"] == "local-dir":
        return f"local {str(found['weights_sha256'])[:8]}"
    return " ".join(part for part in (str(found["model"]), str(found["pretrained"])) if part)
