"""Find a backbone, its weights, tokenizer and preprocessing, and make an encoder of them.

A backbone is a value: a name of open_clip's and a tag of its weights, `hf-hub:org/repo`, or a
local directory that holds `open_clip_config.json` and a weight file. Two traps are closed here:
OpenAI's weights run with QuickGELU whatever the name said, and weights that were not found are
an error and never a random network.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import nn

from models.checkpoints import file_sha256
from models.encoders.open_clip import OpenClipEncoder, fingerprint_of
from models.encoders.preprocess import ImagePreprocess
from models.encoders.spec import BPE_FILE, CONFIG_FILE, EncoderSpec, schema_and_place

if TYPE_CHECKING:
    from models.protocols import Fingerprint, Json

logger = logging.getLogger(__name__)

RANDOM: Final = "random:"


class EncoderNotFound(ValueError):
    """The named backbone or its weights do not exist, or do not fit each other."""


def load_encoder(spec: EncoderSpec) -> OpenClipEncoder:
    """Load a backbone with its weights, tokenizer and preprocessing.

    Raises:
        EncoderNotFound: No such backbone, tag or weight file, or they do not fit each other.
    """
    device = _device(spec.device)
    quick_gelu = _activation(spec)
    if spec.pretrained.startswith(RANDOM):
        torch.manual_seed(_seed(spec.pretrained))
    weights = _weights(spec)
    try:
        model = open_clip.create_model(
            spec.source,
            pretrained=str(weights) if weights and spec.directory is None else None,
            precision=spec.dtype,
            device=device,
            force_quick_gelu=quick_gelu,
            force_preprocess_cfg=_preprocess_of_tag(spec),
            load_weights=weights is not None,
            pretrained_text=False,
            require_pretrained=weights is not None or spec.source.startswith("hf-hub:"),
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise EncoderNotFound(f"cannot load {spec.name!r} ({spec.pretrained}): {error}") from error
    model.eval().requires_grad_(False)
    tokenizer, tokenizer_hash = _tokenizer(spec)
    _check_vocabulary(spec, model, tokenizer)
    preprocess = _preprocess(spec)
    _check_preprocess(spec, model, preprocess)
    weights_hash = file_sha256(weights) if weights else state_sha256(model)
    return OpenClipEncoder(
        model,
        tokenizer,
        preprocess,
        identity=_identity(spec, quick_gelu, weights, weights_hash, tokenizer_hash),
        device=device,
        image_batch=spec.image_batch,
    )


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """What is known of a backbone from its files alone.

    Attributes:
        fingerprint: As the loaded encoder's.
        dim: Width d of the joint space.
    """

    fingerprint: Fingerprint
    dim: int


def encoder_facts(spec: EncoderSpec) -> EncoderFacts:
    """Fingerprint and width of a backbone; its files are hashed, no network is built.

    An untrained network has no file: it is made, to be told apart by its weights.

    Raises:
        EncoderNotFound: As `load_encoder`, for what the files tell.
    """
    quick_gelu = _activation(spec)
    weights = _weights(spec)
    if weights is None:
        encoder = load_encoder(spec)
        return EncoderFacts(encoder.fingerprint, encoder.dim)
    _, tokenizer_hash = _tokenizer(spec)
    identity = _identity(spec, quick_gelu, weights, file_sha256(weights), tokenizer_hash)
    return EncoderFacts(
        fingerprint_of(identity, _preprocess(spec)), int(_config(spec)["embed_dim"])
    )


def _identity(
    spec: EncoderSpec,
    quick_gelu: bool,
    weights: Path | None,
    weights_hash: str,
    tokenizer_hash: str,
) -> dict[str, Json]:
    """Everything but the preprocessing that features depend on."""
    named = spec.directory is not None or weights == Path(spec.pretrained)
    return {
        "model": "local-dir" if spec.directory else spec.source,
        "pretrained": "" if named else spec.pretrained,
        "quick_gelu": quick_gelu or bool(_config(spec).get("quick_gelu", False)),
        "config_sha256": _sha256(json.dumps(_config(spec), sort_keys=True).encode()),
        "weights_sha256": weights_hash,
        "tokenizer_sha256": tokenizer_hash,
        "dtype": spec.dtype,
    }


def state_sha256(model: nn.Module) -> str:
    """Hash of a model's weights: names, types, shapes and values in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return digest.hexdigest()


def _activation(spec: EncoderSpec) -> bool:
    """Whether QuickGELU has to be forced on for the tag's weights.

    open_clip only warns when a tag's activation is not the architecture's, and then gives
    features that look plausible and are wrong.
    """
    if spec.directory or spec.source.startswith("hf-hub:"):
        return False
    known = open_clip.list_models()
    if spec.source not in known:
        near = [name for name in known if name.lower().startswith(spec.source.lower()[:5])]
        raise EncoderNotFound(
            f"open_clip knows no {spec.name!r}, and no directory of that name holds "
            f"{CONFIG_FILE}. Names like it: {', '.join(near[:12] or known[:12])}"
        )
    if not spec.pretrained:
        tags = open_clip.list_pretrained_tags_by_model(spec.source)
        raise EncoderNotFound(
            f"{spec.name!r} needs `pretrained`: a tag ({', '.join(tags) or 'none exists'}), "
            f"a weight file, or {RANDOM}SEED for an untrained network"
        )
    tag = open_clip.get_pretrained_cfg(spec.source, spec.pretrained)
    model_is_quick = bool(_config(spec).get("quick_gelu", False))
    if not tag or bool(tag.get("quick_gelu", False)) == model_is_quick:
        return False
    if model_is_quick:
        raise EncoderNotFound(
            f"the weights {spec.pretrained!r} were trained with GELU but {spec.name!r} computes "
            f"QuickGELU; use {spec.name.removesuffix('-quickgelu')!r}"
        )
    logger.info("%s %s: computing QuickGELU, as trained", spec.name, spec.pretrained)
    return True


def _config(spec: EncoderSpec) -> dict[str, Any]:
    try:
        config: dict[str, Any] = open_clip.get_model_config(spec.source)
    except (OSError, json.JSONDecodeError) as error:
        raise EncoderNotFound(f"{spec.name!r} holds no readable {CONFIG_FILE}: {error}") from error
    return config


def _weights(spec: EncoderSpec) -> Path | None:
    """The weight file on this machine, downloaded if need be; None for untrained networks."""
    if spec.pretrained.startswith(RANDOM):
        return None
    if spec.directory:
        if not (spec.directory / CONFIG_FILE).is_file():
            raise EncoderNotFound(f"{spec.directory} is no directory that holds {CONFIG_FILE}")
        found = open_clip.factory._find_checkpoint_in_dir(spec.directory)
        if found is None:
            raise EncoderNotFound(
                f"{spec.directory} holds {CONFIG_FILE} but no weights (*.safetensors)"
            )
        return Path(found)
    schema, place = schema_and_place(spec.source)
    if schema == "hf-hub":
        return Path(open_clip.pretrained.download_pretrained_from_hf(place))
    if Path(spec.pretrained).is_file():
        return Path(spec.pretrained)
    tag = open_clip.get_pretrained_cfg(spec.source, spec.pretrained)
    if not tag:
        tags = open_clip.list_pretrained_tags_by_model(spec.source)
        raise EncoderNotFound(
            f"{spec.name!r} has no weights {spec.pretrained!r}; tags: {', '.join(tags)}"
        )
    try:
        return Path(open_clip.pretrained.download_pretrained(tag))
    except (OSError, RuntimeError) as error:
        raise EncoderNotFound(
            f"cannot download {spec.pretrained!r} of {spec.name!r}: {error}. Download it "
            "elsewhere and name the file as `pretrained`"
        ) from error


def _preprocess(spec: EncoderSpec) -> ImagePreprocess:
    """What is done to pictures: the backbone's own settings, then its tag's.

    As open_clip sets it on a model that it made, read from the same places.
    """
    schema, place = schema_and_place(spec.source)
    own: dict[str, Json] = {}
    if spec.directory:
        own = json.loads((spec.directory / CONFIG_FILE).read_bytes()).get("preprocess_cfg", {})
    elif schema == "hf-hub":
        own = open_clip.factory._get_hf_config(place).get("preprocess_cfg", {})
    config = merge_preprocess_dict(asdict(PreprocessCfg()), own)
    config["size"] = _image_size(_config(spec)["vision_cfg"])
    config = merge_preprocess_dict(config, _preprocess_of_tag(spec))
    return ImagePreprocess(spec.preprocess, spec.pad_ratio, PreprocessCfg(**config))


def _image_size(vision: dict[str, Any]) -> int | tuple[int, ...]:
    """Height and width of the vision tower's pictures; a ResNet of CLIP's has one number."""
    size = vision.get("image_size", 224)
    is_resnet = isinstance(vision.get("layers"), list | tuple)
    if isinstance(size, int):
        return size if is_resnet else (size, size)
    return tuple(size)


def _preprocess_of_tag(spec: EncoderSpec) -> dict[str, Json]:
    """The tag's mean, std and resize mode: open_clip forgets them for weights given as a file."""
    if spec.directory or not spec.pretrained:
        return {}
    tag = open_clip.get_pretrained_cfg(spec.source, spec.pretrained)
    return {key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in tag}


def _tokenizer(spec: EncoderSpec) -> tuple[Any, str]:
    """The tokenizer and a hash of what defines it.

    open_clip does not look for a directory's own byte-pair file, neither beside the config nor
    relative to it, so this does.
    """
    text_config = dict(_config(spec).get("text_cfg", {}))
    options = dict(text_config.get("tokenizer_kwargs") or {})
    named = options.pop("bpe_path", BPE_FILE)
    bpe = spec.directory / named if spec.directory else None
    if bpe is not None and bpe.is_file():
        length = int(text_config.get("context_length", 77))
        tokenizer = SimpleTokenizer(bpe_path=str(bpe), context_length=length, **options)
        return tokenizer, file_sha256(bpe)
    tokenizer = open_clip.get_tokenizer(spec.source)
    described = json.dumps([type(tokenizer).__name__, text_config], sort_keys=True, default=str)
    return tokenizer, _sha256(described.encode())


def _check_vocabulary(spec: EncoderSpec, model: nn.Module, tokenizer: object) -> None:
    words, rows = getattr(tokenizer, "vocab_size", None), getattr(model, "vocab_size", None)
    if isinstance(tokenizer, SimpleTokenizer) and rows is not None and words > rows:
        raise EncoderNotFound(
            f"{spec.name!r}: the tokenizer knows {words} tokens, the text tower only {rows}; "
            f"put the {BPE_FILE} it was trained with beside {CONFIG_FILE}"
        )


def _check_preprocess(spec: EncoderSpec, model: nn.Module, found: ImagePreprocess) -> None:
    made = replace(found, config=PreprocessCfg(**open_clip.get_model_preprocess_cfg(model)))
    if made.fingerprint != found.fingerprint:
        raise EncoderNotFound(
            f"{spec.name!r}: open_clip prepares pictures as {dict(made.fingerprint)}, its files "
            f"say {dict(found.fingerprint)}; state `preprocess_cfg` and `image_size` in "
            f"{CONFIG_FILE}"
        )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def _seed(pretrained: str) -> int:
    seed = pretrained.removeprefix(RANDOM)
    if not seed.isdigit():
        raise EncoderNotFound(f"{pretrained!r} should be {RANDOM} and a number")
    return int(seed)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
