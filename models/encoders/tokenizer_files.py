"""The tokenizer of a backbone from its files: its kind, where its files lie, and their hash.

No framework is imported; `models.encoders.loading` makes the tokenizer of the same files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from models.checkpoints import TOKENIZER, file_sha256, other_files
from models.encoders.backbone_files import (
    EncoderNotFound,
    architecture,
    hub_file_on_disk,
    own_config,
    sha256_text,
)
from models.encoders.spec import BPE_FILE, CONFIG_FILE, EncoderSpec, schema_and_place
from models.hub import require_hub

TOKENS_VERSION: Final = 1
"""Raised when a release of transformers or tokenizers makes other tokens of the same files."""


def own_bpe(spec: EncoderSpec) -> Path | None:
    """A directory's own byte-pair file, which open_clip does not look for."""
    if not spec.directory:
        return None
    options = architecture(spec).get("text_cfg", {}).get("tokenizer_kwargs") or {}
    file = spec.directory / options.get("bpe_path", BPE_FILE)
    return file if file.is_file() else None


def tokenizer_sha256(spec: EncoderSpec) -> str:
    """A hash of everything that defines the tokenizer.

    That is its byte-pair file, or its kind and settings. The tokenizer of another library is
    defined by files, which are hashed too.

    Raises:
        EncoderNotFound: Such files are missing.
    """
    if file := own_bpe(spec):
        return file_sha256(file)
    kind, text = tokenizer_kind(spec), dict(architecture(spec).get("text_cfg", {}))
    described: list[Any] = [kind, text]
    if kind == "HFTokenizer":
        described.append(_tokenizer_files(spec))
        described.append({"results": TOKENS_VERSION})
    return sha256_text(json.dumps(described, sort_keys=True, default=str))


def _tokenizer_files(spec: EncoderSpec) -> dict[str, str]:
    """File name -> sha256 of the files that a transformers tokenizer is made of."""
    schema, place = schema_and_place(spec.source)
    if schema == "local-dir":
        folder: Path | None = Path(place)
        remedy = f"copy it next to {CONFIG_FILE}"
    else:
        repository = architecture(spec).get("text_cfg", {}).get("hf_tokenizer_name") or place
        folder = _tokenizer_folder(repository)
        remedy = (
            f"download it where there is a network (hf download {repository} tokenizer.json "
            f"tokenizer_config.json), copy the hub's cache (HF_HOME) to this machine, or put the "
            f"files next to {CONFIG_FILE} and the weights in a directory and name that"
        )
    found = other_files(folder) if folder else {}
    if not found.keys() & set(TOKENIZER):
        raise EncoderNotFound(
            f"{spec.name!r} lacks its tokenizer, {' or '.join(TOKENIZER)}: {remedy}"
        )
    return {name: sha256 for name, sha256 in found.items() if name != CONFIG_FILE}


def _tokenizer_folder(repository: str) -> Path | None:
    """The folder of a hub's tokenizer on this machine; it is fetched where there is a network."""
    for name in TOKENIZER:
        if found := hub_file_on_disk(repository, name):
            return found.parent
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = [*TOKENIZER, "*.json", "*.txt"]
    try:
        require_hub(repository)
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        return None


def tokenizer_kind(spec: EncoderSpec) -> str:
    """The class that `open_clip.get_tokenizer` chooses."""
    schema, _ = schema_and_place(spec.source)
    whole = own_config(spec) if schema else {"model_cfg": architecture(spec)}
    if not whole.get("model_cfg") or whole["model_cfg"].get("text_cfg", {}).get(
        "hf_tokenizer_name"
    ):
        return "HFTokenizer"
    return (
        "SigLipTokenizer" if not schema and "siglip" in spec.source.lower() else "SimpleTokenizer"
    )
