"""Find a backbone, its weights, tokenizer and preprocessing, and make an encoder of them.

What its files say without being loaded is `models.encoders.backbone_files`. Two traps are closed
here: OpenAI's weights run with QuickGELU whatever the name said, and weights that were not found
are an error and never a random network.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg
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
    random_seed,
    tag_preprocess,
    weights_file,
)
from models.encoders.open_clip import OpenClipEncoder
from models.encoders.preprocess import ImagePreprocess
from models.encoders.spec import BPE_FILE, CONFIG_FILE, EncoderSpec
from models.encoders.tokenizer_files import own_bpe, tokenizer_sha256
from models.encoders.weight_check import require_sizes
from models.loaded_weights import (
    UNREADABLE,
    first_line,
    require_finite,
    require_vocabulary,
    require_written,
)


def load_encoder(spec: EncoderSpec) -> OpenClipEncoder:
    """Load a backbone with its weights, tokenizer and preprocessing.

    Raises:
        EncoderNotFound: No such backbone, tag or weight file, or they do not fit each other.
    """
    device = pick_device(spec.device)
    quick_gelu = forced_activation(spec)
    if spec.pretrained.startswith(RANDOM):
        torch.manual_seed(random_seed(spec))
    weights = weights_file(spec)
    architecture(spec)  # a file that describes no backbone is refused here, in words
    try:
        model = open_clip.create_model(
            spec.source,
            pretrained=str(weights) if weights and spec.directory is None else None,
            precision=spec.precision,
            device=device,
            force_quick_gelu=quick_gelu,
            force_preprocess_cfg=tag_preprocess(spec),
            load_weights=weights is not None,
            pretrained_text=False,
            require_pretrained=weights is not None or spec.source.startswith("hf-hub:"),
        )
    except UNREADABLE as error:
        said = f"{type(error).__name__}: {str(error)[:1000]}"
        raise EncoderNotFound(f"cannot load {spec.name!r} ({spec.pretrained}): {said}") from error
    model.eval().requires_grad_(False)
    if weights is not None:
        require_sizes(spec, weights, model)
        require_finite(spec.name, model)
        require_written(spec.name, model)
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
        channels_last=spec.channels_last,
        compiled=spec.compile,
    )


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


def _check_vocabulary(spec: EncoderSpec, model: nn.Module, tokenizer: Any) -> None:
    rows = getattr(model, "vocab_size", None) or getattr(model.text, "vocab_size", None)
    if rows is None:
        return
    if isinstance(tokenizer, HFTokenizer):
        require_vocabulary(spec.name, tokenizer.tokenizer, rows)
    elif isinstance(tokenizer, SimpleTokenizer) and (words := tokenizer.vocab_size) > rows:
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
