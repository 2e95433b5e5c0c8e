"""MagicLens's published files, `magic_lens_clip_base.pkl` and `_large.pkl`, as a network.

They are Flax parameters: a CLIP (Scenic's), `multimodal_encoder`, `contrastive_multimodal_pooler`.
Pictures are brought to a square by scaling both sides, as the released evaluation does. It divides
pixels by the brightest one of the picture; here they are divided by 255, which is another number
only for pictures without a white pixel. Scenic's text tower also masks CLIP's token 0, which is
padding and the "!" inside a longer word; here an exclamation mark is read.
Shape legend: d width of a layer, N heads, h width of a head, i inputs, o outputs.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import torch
from open_clip.transform import PreprocessCfg

from models.checkpoints import UnusableCheckpoint
from models.composed.clip_weights import HEAD_WIDTH, published_towers, split
from models.composed.flax_file import read_flax
from models.composed.magiclens_head import POOLED
from models.composed.magiclens_network import MagicLensNetwork
from models.composed.magiclens_settings import MagicLensSettings
from models.encoders.preprocess import ImagePreprocess
from models.published_state import State, fill, log_taken, sizes_of
from models.spelling import some_of

_LAYER: Final = re.compile(r"multimodal_encoder\.x_layers_(0|[1-9][0-9]{0,8})\.(.+)")
_POOLER: Final = "contrastive_multimodal_pooler."
_QKV: Final = ("query", "key", "value")

Turned: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _transposed(tensor: torch.Tensor) -> torch.Tensor:
    """(i, o) -> (o, i)."""
    return tensor.t().contiguous()


def _plus_one(tensor: torch.Tensor) -> torch.Tensor:
    """A norm multiplies by 1 + scale there."""
    return 1 + tensor


def _into_heads(tensor: torch.Tensor) -> torch.Tensor:
    """(d, N, h) -> (N h, d)."""
    return tensor.flatten(1).T.contiguous()


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """(N, h) -> (N h,), or (d, N, h) -> (d, N h)."""
    return tensor.flatten(-2)


def _attention(there: str, here: str) -> dict[str, tuple[str, Turned]]:
    inward = {
        f"{there}.{each}.{kind}": (f"{here}.{each}.{name}", turned)
        for each in _QKV
        for kind, name, turned in (("w", "weight", _into_heads), ("b", "bias", _flat))
    }
    return inward | {
        f"{there}.post.w": (f"{here}.post.weight", _flat),
        f"{there}.post.b": (f"{here}.post.bias", _same),
    }


def _norm(there: str, here: str) -> dict[str, tuple[str, Turned]]:
    return {
        f"{there}.scale": (f"{here}.weight", _plus_one),
        f"{there}.bias": (f"{here}.bias", _same),
    }


_IN_A_LAYER: Final[Mapping[str, tuple[str, Turned]]] = {
    **_norm("layer_norm", "norm"),
    **_attention("self_attention", "attention"),
    **_norm("ff_layer.layer_norm", "second_norm"),
    "ff_layer.ffn_layer1.linear.w": ("expand.weight", _transposed),
    "ff_layer.ffn_layer1.bias.b": ("expand.bias", _same),
    "ff_layer.ffn_layer2.linear.w": ("shrink.weight", _transposed),
    "ff_layer.ffn_layer2.bias.b": ("shrink.bias", _same),
}
_IN_THE_POOLER: Final[Mapping[str, tuple[str, Turned]]] = {
    **_attention("pool_attn", "pooling"),
    "pool_attn.per_dim_scale.per_dim_scale": ("pooling.scales", _same),
    **_norm("pool_attn_ln", "norm"),
    "pooling_attn_query": ("asked", _same),
}


def published(path: Path, settings: MagicLensSettings) -> MagicLensNetwork:
    """The network of a published file; its layers, heads and widths are the file's.

    Args:
        path: The file.
        settings: Of the loss.

    Raises:
        UnusableCheckpoint: Names are missing or unknown, or shapes differ.
    """
    state = read_flax(path)
    clip, fusion = split(state, "clip.")
    if strange := [name for name in fusion if _placed(name) is None]:
        raise UnusableCheckpoint(
            f"{path} holds {some_of(strange)}, which MagicLens has no place for; take the "
            "published file again, or say what it is"
        )
    _require_heads(clip, HEAD_WIDTH, path)
    towers, parts = published_towers(dict(_openai(clip, path)), path)
    size = parts.preprocess.config.size
    squashed = PreprocessCfg(size=size, interpolation="bilinear", resize_mode="squash")
    parts = dataclasses.replace(parts, preprocess=ImagePreprocess("clip", 1.0, squashed))
    first = "multimodal_encoder.x_layers_0."
    _, heads, _ = sizes_of(fusion, f"{first}self_attention.query.w", 3, path)
    _, wide = sizes_of(fusion, f"{first}ff_layer.ffn_layer1.linear.w", 2, path)
    layers = {int(found[1]) for found in map(_LAYER.match, fusion) if found}
    if layers != set(range(len(layers))):
        raise UnusableCheckpoint(
            f"{path} has layers {some_of(sorted(map(str, layers)))} of multimodal_encoder, which "
            "are not numbered from 0 without a gap; take the published file again"
        )
    own = settings.changed(layers=len(layers), heads=heads, feedforward=wide)
    if towers.dim % heads:
        raise UnusableCheckpoint(
            f"{path}: {first}self_attention.query.w has {heads} heads, which do not divide the "
            f"width {towers.dim} of its CLIP; take the published file again"
        )
    inside, pooling = split(fusion, "multimodal_encoder.")
    _require_heads(inside, towers.dim // heads, path)
    _require_heads(pooling, POOLED * towers.dim // heads, path)
    network = MagicLensNetwork(towers, parts, own)
    fill(network.head, dict(_head(fusion, path)), path)
    log_taken(path, state, ())
    return network.eval()


def _head(fusion: State, path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors under the names of `MagicLensHead`."""
    for name, tensor in fusion.items():
        if placed := _placed(name):
            here, turned = placed
            yield here, _turned(turned, tensor, name, path)


def _placed(name: str) -> tuple[str, Turned] | None:
    """The name in `MagicLensHead`, and how to turn the tensor; None where it has no place."""
    if found := _LAYER.fullmatch(name):
        placed = _IN_A_LAYER.get(found[2])
        return placed and (f"layers.{found[1]}.{placed[0]}", placed[1])
    if name.startswith(_POOLER):
        return _IN_THE_POOLER.get(name.removeprefix(_POOLER))
    return None


def _require_heads(tensors: State, width: int, path: Path) -> None:
    """Refuse heads of another width: laid flat, they would fit and compute something else."""
    for name, tensor in tensors.items():
        *_, layer, kind = ("", *name.split("."))
        inward = layer in _QKV or (layer, kind) == ("post", "w")
        if not inward and (layer, kind) != ("out", "kernel"):
            continue
        found = tuple(tensor.shape[-1:] if inward else tensor.shape[-2:-1])
        if found and found != (width,):
            raise UnusableCheckpoint(
                f"{path}: {name} has heads of {found[0]} numbers and not of {width}; take the "
                "published file again"
            )


def _openai(clip: State, path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Scenic's CLIP under OpenAI's names; an attention's three inward layers become one."""
    inward: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in clip.items():
        here = re.sub(r"\.resblocks_(\d+)\.", r".resblocks.\1.", name.removeprefix("text."))
        layer, _, kind = here.rpartition(".")
        attention, _, part = layer.rpartition(".")
        if part in _QKV:
            found = inward.setdefault(f"{attention}.in_proj_{_kind(kind)}", {})
            found[part] = _turned(_into_heads if kind == "kernel" else _flat, tensor, name, path)
        elif attention.endswith(".attn") and part == "out":
            turned = _outward if kind == "kernel" else _same
            yield f"{attention}.out_proj.{_kind(kind)}", _turned(turned, tensor, name, path)
        elif part == "conv1" and kind == "kernel":
            yield f"{layer}.weight", _turned(_patches, tensor, name, path)
        elif layer in ("visual.proj", "text_projection"):
            yield layer, tensor
        elif kind == "kernel":
            yield f"{layer}.weight", _turned(_transposed, tensor, name, path)
        else:
            yield (f"{layer}.{_kind(kind)}" if layer else here), tensor
    for name, parts in inward.items():
        if missing := [each for each in _QKV if each not in parts]:
            raise UnusableCheckpoint(
                f"{path} lacks {' and '.join(missing)} of {name.rpartition('.')[0]}; take the "
                "published file again"
            )
        three = [parts[each] for each in _QKV]
        if len({each.shape for each in three}) > 1:
            shapes = ", ".join(str(tuple(each.shape)) for each in three)
            raise UnusableCheckpoint(
                f"{path}: query, key and value of {name.rpartition('.')[0]} have the shapes "
                f"{shapes}, which differ; take the published file again"
            )
        yield name, torch.cat(three)


def _kind(kind: str) -> str:
    return {"kernel": "weight", "scale": "weight", "embedding": "weight"}.get(kind, kind)


def _outward(tensor: torch.Tensor) -> torch.Tensor:
    """(N, h, d) -> (d, N h)."""
    return tensor.flatten(0, 1).T.contiguous()


def _patches(tensor: torch.Tensor) -> torch.Tensor:
    """(height, width, i, o) -> (o, i, height, width)."""
    return tensor.permute(3, 2, 0, 1).contiguous()


def _turned(turned: Turned, tensor: torch.Tensor, name: str, path: Path) -> torch.Tensor:
    try:
        return turned(tensor)
    except (RuntimeError, IndexError) as error:
        raise UnusableCheckpoint(
            f"{path}: {name} has the shape {tuple(tensor.shape)}, which is not its own; take the "
            "published file again"
        ) from error
