"""Find a backbone, its weights, tokenizer and preprocessing, and make an encoder of them.

What its files say without being loaded is `models.encoders.backbone_files`. Two traps are closed
here: OpenAI's weights run with QuickGELU whatever the name said, and weights that were not found
are an error and never a random network.
"""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg
from safetensors import SafetensorError, safe_open
from torch import nn

from models.checkpoints import file_sha256
from models.devices import pick_device
from models.encoders.backbone_files import (
    RANDOM,
    EncoderNotFound,
    architecture,
    encoder_identity,
    forced_activation,
    preprocess_settings,
    tag_preprocess,
    weights_file,
)
from models.encoders.open_clip import OpenClipEncoder
from models.encoders.preprocess import ImagePreprocess
from models.encoders.spec import BPE_FILE, CONFIG_FILE, EncoderSpec
from models.encoders.tokenizer_files import own_bpe, tokenizer_sha256
from models.loaded_weights import first_line, require_finite
from models.spelling import some_of


def load_encoder(spec: EncoderSpec) -> OpenClipEncoder:
    """Load a backbone with its weights, tokenizer and preprocessing.

    Raises:
        EncoderNotFound: No such backbone, tag or weight file, or they do not fit each other.
    """
    device = pick_device(spec.device)
    quick_gelu = forced_activation(spec)
    if spec.pretrained.startswith(RANDOM):
        torch.manual_seed(_seed(spec.pretrained))
    weights = weights_file(spec)
    try:
        model = open_clip.create_model(
            spec.source,
            pretrained=str(weights) if weights and spec.directory is None else None,
            precision=spec.dtype,
            device=device,
            force_quick_gelu=quick_gelu,
            force_preprocess_cfg=tag_preprocess(spec),
            load_weights=weights is not None,
            pretrained_text=False,
            require_pretrained=weights is not None or spec.source.startswith("hf-hub:"),
        )
    except (RuntimeError, OSError, ValueError, KeyError, SafetensorError) as error:
        raise EncoderNotFound(f"cannot load {spec.name!r} ({spec.pretrained}): {error}") from error
    model.eval().requires_grad_(False)
    if weights is not None:
        require_finite(spec.name, model)
        _require_shapes(spec, weights, model)
    tokenizer = _tokenizer(spec)
    _check_vocabulary(spec, model, tokenizer)
    settings = PreprocessCfg(**preprocess_settings(spec))
    preprocess = ImagePreprocess(spec.preprocess, spec.pad_ratio, settings)
    _check_preprocess(spec, model, preprocess)
    weights_hash = file_sha256(weights) if weights else state_sha256(model)
    return OpenClipEncoder(
        model,
        tokenizer,
        preprocess,
        identity=encoder_identity(spec, quick_gelu, weights, weights_hash, tokenizer_sha256(spec)),
        device=device,
        image_batch=spec.image_batch,
    )


def check_weights(spec: EncoderSpec) -> None:
    """Compare the names and shapes in a backbone's weight file with its architecture.

    No weight is read. Files of other forms than safetensors, and architectures with towers of other
    libraries, are left to `load_encoder`.

    Raises:
        EncoderNotFound: The file is missing or damaged, or does not fit.
    """
    weights, config = weights_file(spec), copy.deepcopy(architecture(spec))
    towers = (config.get("vision_cfg", {}), config.get("text_cfg", {}))
    foreign = any(key in tower for tower in towers for key in ("timm_model_name", "hf_model_name"))
    if weights is None or weights.suffix != ".safetensors" or foreign:
        return
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    with torch.device("meta"):
        model = kind(**config)
    found = _shapes(spec, weights)
    needed = {name for name in model.state_dict() if name != "logit_bias"}
    if found.keys().isdisjoint(needed):
        return  # another library's names, which open_clip translates
    if missing := sorted(needed - found.keys()):
        raise EncoderNotFound(
            f"{weights.name} of {spec.name!r} lacks {len(missing)} of the weights of its "
            f"{CONFIG_FILE} ({some_of(missing)}); take the published file again"
        )
    _require_shapes(spec, weights, model)


def _require_shapes(spec: EncoderSpec, weights: Path, model: nn.Module) -> None:
    """Refuse weights of another size: open_clip would stretch positions and say nothing."""
    if weights.suffix != ".safetensors":
        return
    found = _shapes(spec, weights)
    wrong = [
        f"{name} {found[name]} instead of {tuple(tensor.shape)}"
        for name, tensor in model.state_dict().items()
        if name in found and math.prod(found[name]) != tensor.numel()
    ]
    if wrong:
        raise EncoderNotFound(
            f"{weights.name} of {spec.name!r} does not fit its {CONFIG_FILE}: {some_of(wrong)}; "
            "state the image size and context length that it was trained with"
        )


def _shapes(spec: EncoderSpec, weights: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(weights, framework="pt") as file:
            return {n: tuple(file.get_slice(n).get_shape()) for n in list(file.keys())}
    except (SafetensorError, OSError) as error:
        raise EncoderNotFound(
            f"{weights.name} of {spec.name!r} is damaged: {first_line(error)}"
        ) from error


def state_sha256(model: nn.Module) -> str:
    """Hash of a model's weights: names, types, shapes and values in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return digest.hexdigest()


def _tokenizer(spec: EncoderSpec) -> Any:
    """The tokenizer: of the directory's own byte-pair file, or the one that open_clip takes."""
    bpe = own_bpe(spec)
    if bpe is None:
        tokenizer_sha256(spec)  # names the files that are missing, where open_clip would ask a hub
        try:
            return open_clip.get_tokenizer(spec.source)
        except Exception as error:  # the Rust tokenizer raises bare exceptions
            raise EncoderNotFound(
                f"the tokenizer of {spec.name!r} cannot be loaded: {first_line(error)}"
            ) from error
    text = architecture(spec).get("text_cfg", {})
    options = {k: v for k, v in (text.get("tokenizer_kwargs") or {}).items() if k != "bpe_path"}
    length = int(text.get("context_length", 77))
    return SimpleTokenizer(bpe_path=str(bpe), context_length=length, **options)


def _check_vocabulary(spec: EncoderSpec, model: nn.Module, tokenizer: object) -> None:
    words, rows = getattr(tokenizer, "vocab_size", None), getattr(model, "vocab_size", None)
    if isinstance(tokenizer, SimpleTokenizer) and rows is not None and words > rows:
        raise EncoderNotFound(
            f"{spec.name!r}: the tokenizer knows {words} tokens, the text tower only {rows}; "
            f"put the {BPE_FILE} it was trained with next to {CONFIG_FILE}"
        )


def _check_preprocess(spec: EncoderSpec, model: nn.Module, found: ImagePreprocess) -> None:
    made = replace(found, config=PreprocessCfg(**open_clip.get_model_preprocess_cfg(model)))
    if made.fingerprint != found.fingerprint:
        raise EncoderNotFound(
            f"{spec.name!r}: open_clip prepares pictures as {dict(made.fingerprint)}, its files "
            f"say {dict(found.fingerprint)}; state `preprocess_cfg` and `image_size` in "
            f"{CONFIG_FILE}"
        )


def _seed(pretrained: str) -> int:
    seed = pretrained.removeprefix(RANDOM)
    if not seed.isdigit():
        raise EncoderNotFound(f"{pretrained!r} should be {RANDOM} and a number")
    return int(seed)
