"""Facts of a backbone from its files, read without torch and without open_clip.

A backbone is a value: a name of open_clip's and a tag of its weights, `hf-hub:org/repo`, or a
local directory that holds `open_clip_config.json` and a weight file. `models.encoders.loading`
makes an encoder of the same files. What open_clip's table says of tags is `open_clip_tags`.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.encoders.open_clip_tags import (
    download_from_hub,
    download_tagged,
    library_folder,
    library_name,
    tag_entry,
    tags_of,
)
from models.encoders.spec import CONFIG_FILE, EncoderSpec, schema_and_place
from models.hub import HubUnreachable, require_hub
from models.spelling import did_you_mean

if TYPE_CHECKING:
    from models.protocols import Fingerprint, Json, PreprocessMode

logger = logging.getLogger(__name__)

RANDOM: Final = "random:"
"""Before the seed of an untrained network, in the place of a tag."""

PREPROCESS: Final[Mapping[str, Json]] = {
    "size": 224,
    "mode": "RGB",
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
"""open_clip's own settings (`PreprocessCfg`), for what neither backbone nor tag says."""

_WEIGHT_FILES: Final = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""Names of weights, the one that open_clip prefers first."""

_HUB_WEIGHTS: Final = "open_clip_pytorch_model.bin"


class EncoderNotFound(ValueError):
    """The named backbone or its weights do not exist, or do not fit each other."""


def encoder_fingerprint(
    identity: Mapping[str, Json], preprocess: Mapping[str, Json]
) -> Fingerprint:
    """All that features depend on: a backbone's identity, its preprocessing and the library."""
    return {"engine": library_name(), **identity, "preprocess": dict(preprocess)}


def encoder_identity(
    spec: EncoderSpec,
    quick_gelu: bool,
    weights: Path | None,
    weights_sha256: str,
    tokenizer_sha256: str,
) -> dict[str, Json]:
    """Everything but the preprocessing that features depend on."""
    named = spec.directory is not None or weights == Path(spec.pretrained)
    return {
        "model": "local-dir" if spec.directory else spec.source,
        "pretrained": "" if named else spec.pretrained,
        "quick_gelu": quick_gelu or bool(architecture(spec).get("quick_gelu", False)),
        "config_sha256": sha256_text(json.dumps(architecture(spec), sort_keys=True)),
        "weights_sha256": weights_sha256,
        "tokenizer_sha256": tokenizer_sha256,
        "dtype": spec.precision,
        **_foreign_tower(spec),
    }


def _foreign_tower(spec: EncoderSpec) -> dict[str, Json]:
    """The configuration of a text tower of transformers, which its own repository holds."""
    place = architecture(spec)["text_cfg"].get("hf_model_name")
    if not place:
        return {}
    try:
        file = (
            Path(place, "config.json") if Path(place).is_dir() else _hub_file(place, "config.json")
        )
        return {"text_config_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    except (OSError, RuntimeError, ValueError) as error:
        raise EncoderNotFound(
            f"{spec.name!r} lacks config.json of its text tower {place!r}: download it where there "
            f"is a network (hf download {place} config.json) and copy the hub's cache (HF_HOME) "
            "to this machine"
        ) from error


def architecture(spec: EncoderSpec) -> dict[str, Any]:
    """The architecture of a backbone.

    Raises:
        EncoderNotFound: Its directory holds no readable configuration.
    """
    if schema_and_place(spec.source)[0] is None:
        return _known_models()[spec.source]
    whole = own_config(spec)
    found: dict[str, Any] = whole.get("model_cfg", whole)
    parts = [found.get(part) if isinstance(found, dict) else None for part in _PARTS]
    if not all(isinstance(part, dict) for part in parts) or "embed_dim" not in found:
        raise EncoderNotFound(
            f"{CONFIG_FILE} of {spec.name!r} describes no backbone: `model_cfg` needs embed_dim, "
            f"{' and '.join(_PARTS)}"
        )
    return found


_PARTS: Final = ("vision_cfg", "text_cfg")


def own_config(spec: EncoderSpec) -> dict[str, Any]:
    """The configuration that a directory or a repository brings."""
    schema, place = schema_and_place(spec.source)
    try:
        file = Path(place, CONFIG_FILE) if schema == "local-dir" else _hub_file(place, CONFIG_FILE)
        whole: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderNotFound(f"{spec.name!r} holds no readable {CONFIG_FILE}: {error}") from error
    if not isinstance(whole, dict):
        raise EncoderNotFound(f"{CONFIG_FILE} of {spec.name!r} is not a JSON object")
    return whole


@functools.cache
def _known_models() -> dict[str, dict[str, Any]]:
    """Name -> architecture of every model that open_clip knows."""
    files = (library_folder() / "model_configs").glob("*.json")
    configs = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(files)}
    needed = {"embed_dim", "vision_cfg", "text_cfg"}
    return {name: known for name, known in configs.items() if needed <= known.keys()}


def require_known(spec: EncoderSpec) -> None:
    """Refuse a name that is neither open_clip's nor a directory with a configuration.

    Raises:
        EncoderNotFound: Names those that are like it.
    """
    if spec.directory is not None:
        architecture(spec)
    elif schema_and_place(spec.source)[0] is None and spec.source not in _known_models():
        if "/" in spec.name:
            raise EncoderNotFound(
                f"no directory {spec.name!r} with {CONFIG_FILE}: give one that has it, "
                "hf-hub:ORG/REPO for a repository of the hub, or a name of open_clip's, such as "
                "ViT-L-14"
            )
        known = list(_known_models())
        alike = difflib.get_close_matches(spec.source, known, n=1, cutoff=0.8)
        near = [name for name in known if name.lower().startswith(spec.source.lower()[:5])]
        raise EncoderNotFound(
            f"open_clip knows no {spec.name!r}, and no directory of that name holds "
            f"{CONFIG_FILE}. {f'Did you mean {alike[0]!r}? ' if alike else ''}Names like it: "
            f"{', '.join(near[:12] or known[:12])}"
        )


def forced_activation(spec: EncoderSpec) -> bool:
    """Whether QuickGELU has to be forced on for the tag's weights.

    open_clip only warns when a tag's activation is not the architecture's, and then gives
    features that look plausible and are wrong.

    Raises:
        EncoderNotFound: open_clip knows no such model, no tag is given, or the model computes
            QuickGELU and the tag's weights were trained without it.
    """
    if schema_and_place(spec.source)[0]:
        return False
    require_known(spec)
    if not spec.pretrained:
        tags = ", ".join(tags_of(spec.source)) or "none exists"
        raise EncoderNotFound(
            f"{spec.name!r} needs `pretrained`: a tag ({tags}), a weight file, or {RANDOM}SEED "
            "for an untrained network"
        )
    tag = tag_settings(spec)
    model_is_quick = bool(architecture(spec).get("quick_gelu", False))
    if not tag or bool(tag.get("quick_gelu", False)) == model_is_quick:
        return False
    if model_is_quick:
        raise EncoderNotFound(
            f"the weights {spec.pretrained!r} were trained with GELU but {spec.name!r} computes "
            f"QuickGELU; use {spec.name.removesuffix('-quickgelu')!r}"
        )
    logger.info("%s %s: computing QuickGELU, as trained", spec.name, spec.pretrained)
    return True


def random_seed(spec: EncoderSpec) -> int:
    """The seed of an untrained network.

    Raises:
        EncoderNotFound: What follows is not a number.
    """
    seed = spec.pretrained.removeprefix(RANDOM)
    if not seed.isdecimal():
        raise EncoderNotFound(f"{spec.pretrained!r} should be {RANDOM} and a number")
    return int(seed)


def weights_file(spec: EncoderSpec) -> Path | None:
    """The weight file on this machine, downloaded if need be; None for untrained networks.

    Raises:
        EncoderNotFound: There is none.
    """
    if found := weights_here(spec):
        return found
    if spec.pretrained.startswith(RANDOM):
        return None
    schema, place = schema_and_place(spec.source)
    try:
        if schema == "hf-hub":
            return Path(download_from_hub(place, _HUB_WEIGHTS))
        return Path(download_tagged(tag_settings(spec)))
    except (OSError, RuntimeError) as error:
        raise EncoderNotFound(
            f"cannot download {spec.pretrained or place!r} of {spec.name!r}: {error}. Download it "
            "elsewhere and name the file as `pretrained`"
        ) from error


def weights_here(spec: EncoderSpec) -> Path | None:
    """The weight file on this machine.

    None for untrained networks, and where a hub that answers has it.

    Raises:
        EncoderNotFound: There is none, and none can be fetched.
    """
    if spec.pretrained.startswith(RANDOM):
        random_seed(spec)
        return None
    if spec.directory:
        return _file_in(spec.directory)
    schema, place = schema_and_place(spec.source)
    if schema is None and Path(spec.pretrained).is_file():
        return Path(spec.pretrained)
    name, tag = _HUB_WEIGHTS, tag_settings(spec)
    if schema is None:
        if not tag:
            raise EncoderNotFound(_no_weights(spec))
        place, name = os.path.split(str(tag.get("hf_hub", "")))
    if found := hub_file_on_disk(place, name or _HUB_WEIGHTS):
        return found
    if place:
        _require_hub_of(spec, place)
    return None


def _no_weights(spec: EncoderSpec) -> str:
    """Why a backbone has no weights of that name: no such file, or no such tag."""
    tags = tags_of(spec.source)
    is_file = Path(spec.pretrained).suffix in (".safetensors", ".bin", ".pt", ".pth")
    hint = "there is no such file; " if is_file else did_you_mean(spec.pretrained, tags)
    return f"{spec.name!r} has no weights {spec.pretrained!r}; {hint}tags: {', '.join(tags)}"


def _require_hub_of(spec: EncoderSpec, repository: str) -> None:
    try:
        require_hub(repository)
    except HubUnreachable as error:
        raise EncoderNotFound(f"{spec.name!r}: {error}") from error


def _file_in(folder: Path) -> Path:
    """The weights in a directory that open_clip would take."""
    if not (folder / CONFIG_FILE).is_file():
        raise EncoderNotFound(f"{folder} is not a directory that holds {CONFIG_FILE}")
    found = [
        file for suffix in ("safetensors", "bin", "pth") for file in folder.glob(f"*.{suffix}")
    ]
    if not found:
        raise EncoderNotFound(f"{folder} holds {CONFIG_FILE} but no weights (*.safetensors)")
    places = {name: place for place, name in enumerate(_WEIGHT_FILES)}
    return min(
        found,
        key=lambda file: (
            places.get(file.name, len(places)),
            file.suffix != ".safetensors",
            file,
        ),
    )


def _hub_file(repository: str, name: str) -> Path:
    """A file of a hub's repository; open_clip fetches it where it is not on this machine."""
    if found := hub_file_on_disk(repository, name):
        return found
    require_hub(repository)
    return Path(download_from_hub(repository, name))


def hub_file_on_disk(repository: str, name: str) -> Path | None:
    """A file of a hub's repository that was fetched before; safetensors before other weights."""
    if not repository:
        return None
    from huggingface_hub import try_to_load_from_cache

    safe = {_HUB_WEIGHTS: "open_clip_model.safetensors"}.get(name, f"{Path(name).stem}.safetensors")
    is_weights = name.endswith((".bin", ".pth"))
    for wanted in (safe, name) if is_weights else (name,):
        found = try_to_load_from_cache(repository, wanted)
        if isinstance(found, str):
            return Path(found)
    return None


def tag_settings(spec: EncoderSpec) -> Mapping[str, Any]:
    """The entry of a tag in open_clip's table: where its weights are, activation, preprocessing."""
    if not spec.pretrained or os.sep in spec.pretrained or spec.pretrained.startswith(RANDOM):
        return {}  # weights of another origin, or none
    return tag_entry(spec.source, spec.pretrained)


def tag_preprocess(spec: EncoderSpec) -> dict[str, Any]:
    """The tag's mean, std and resize mode: open_clip forgets them for weights given as a file."""
    if spec.directory or not spec.pretrained:
        return {}
    names, tag = ("mean", "std", "interpolation", "resize_mode"), tag_settings(spec)
    return {name: tag[name] for name in names if name in tag}


def preprocess_settings(spec: EncoderSpec) -> dict[str, Any]:
    """How pictures are prepared: the backbone's own settings, then its tag's.

    As open_clip sets it on a model that it made, read from the same places.
    """
    own = {}
    if schema_and_place(spec.source)[0]:
        own = own_config(spec).get("preprocess_cfg", {})
    size = {"size": _image_size(architecture(spec)["vision_cfg"])}
    merged = dict(PREPROCESS)
    for part in (own, size, tag_preprocess(spec)):
        merged |= {k: v for k, v in part.items() if k in PREPROCESS and v is not None}
    return merged


def preprocess_fingerprint(
    mode: PreprocessMode, pad_ratio: float, settings: Mapping[str, Any]
) -> Mapping[str, Json]:
    """Everything that changes pixels."""
    listed = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    return {
        "geometry": mode,
        "pad_ratio": pad_ratio if mode == "targetpad" else None,
        **listed,
    }


def _image_size(vision: Mapping[str, Any]) -> int | tuple[int, ...]:
    """Height and width of the vision tower's pictures; a ResNet of CLIP's has one number."""
    size = vision.get("image_size", 224)
    is_resnet = isinstance(vision.get("layers"), list | tuple)
    if isinstance(size, int):
        return size if is_resnet else (size, size)
    return tuple(size)


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
