"""Random MagicLens networks in the layout of the published files, and what they compute."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADS, HEAD, DIM, WIDE, LAYERS = 2, 12, 24, 20, 2
Tree = dict[str, Any]


def packed(tree: Tree) -> bytes:
    """As `flax.serialization.to_bytes`."""
    import msgpack

    def leaf(array: NDArray[Any]) -> Any:
        told = (array.shape, array.dtype.name, array.tobytes("C"))
        return msgpack.ExtType(1, msgpack.packb(told, use_bin_type=True))

    return bytes(msgpack.packb(tree, default=leaf, strict_types=True))


def write_magiclens(file: Path, tree: Tree) -> Path:
    """The published form: a pickle of those bytes."""
    file.write_bytes(pickle.dumps(packed({"params": tree})))
    return file


def scenic_clip(state: dict[str, NDArray[np.float32]], heads: int) -> Tree:
    """OpenAI's names and axes -> Scenic's with underscores."""
    tree: Tree = {}
    for name, array in state.items():
        parts = name.replace("resblocks.", "resblocks_").split(".")
        if parts[0] != "visual" and name != "logit_scale":
            parts = ["text", *parts]
        *above, kind = parts
        if "attn" in parts:
            _attention(_below(tree, above[: above.index("attn") + 1]), name, array, heads)
        elif parts[-2:] == ["token_embedding", "weight"]:
            _below(tree, above)["embedding"] = array
        elif kind in ("proj", "text_projection"):
            _below(tree, parts)["kernel"] = array
        elif kind == "weight" and array.ndim == 1:
            _below(tree, above)["scale"] = array
        elif kind == "weight":
            axes = (2, 3, 1, 0) if array.ndim == 4 else (1, 0)
            _below(tree, above)["kernel"] = array.transpose(axes)
        else:
            _below(tree, above)[kind] = array
    return tree


def _below(tree: Tree, names: list[str]) -> Tree:
    for name in names:
        tree = tree.setdefault(name, {})
    return tree


def _attention(place: Tree, name: str, array: NDArray[np.float32], heads: int) -> None:
    kind = "bias" if name.endswith("bias") else "kernel"
    if "out_proj" in name:
        width = array.shape[0]
        turned = array if kind == "bias" else array.T.reshape(heads, -1, width)
        place.setdefault("out", {})[kind] = turned
        return
    for part, one in zip(("query", "key", "value"), np.split(array, 3), strict=True):
        turned = one.reshape(heads, -1) if kind == "bias" else one.T.reshape(len(one), heads, -1)
        place.setdefault(part, {})[kind] = turned


def fusion(seed: int = 0) -> Tree:
    """Random parameters of the fusion and the pooler."""
    chance = np.random.default_rng(seed)

    def some(*shape: int) -> NDArray[np.float32]:
        return (chance.standard_normal(shape) * 0.4).astype(np.float32)

    def norm() -> Tree:
        return {"scale": some(DIM), "bias": some(DIM)}

    def attention(inside: int) -> Tree:
        found: Tree = {
            name: {"w": some(DIM, HEADS, inside), "b": some(HEADS, inside)}
            for name in ("query", "key", "value")
        }
        return found | {"post": {"w": some(DIM, HEADS, inside), "b": some(DIM)}}

    def dense(inputs: int, outputs: int) -> Tree:
        return {"linear": {"w": some(inputs, outputs)}, "bias": {"b": some(outputs)}}

    layers = {
        f"x_layers_{number}": {
            "layer_norm": norm(),
            "self_attention": attention(HEAD),
            "ff_layer": {
                "layer_norm": norm(),
                "ffn_layer1": dense(DIM, WIDE),
                "ffn_layer2": dense(WIDE, DIM),
            },
        }
        for number in range(LAYERS)
    }
    pooler = {
        "pool_attn": attention(4 * HEAD) | {"per_dim_scale": {"per_dim_scale": some(4 * HEAD)}},
        "pool_attn_ln": norm(),
        "pooling_attn_query": some(1, DIM),
    }
    return {"multimodal_encoder": layers, "contrastive_multimodal_pooler": pooler}


def fused(tree: Tree, image: NDArray[Any], text: NDArray[Any]) -> NDArray[np.float64]:
    """(d,) of a picture's and a text's vector: the released formulas, one pair at a time."""
    x = np.stack([image, text]).astype(np.float64)
    for number in range(LAYERS):
        layer = tree["multimodal_encoder"][f"x_layers_{number}"]
        seen = _norm(layer["layer_norm"], x)
        x = x + _attended(layer["self_attention"], seen, seen)
        feed = layer["ff_layer"]
        hidden = _dense(feed["ffn_layer1"], _norm(feed["layer_norm"], x))
        x = x + _dense(feed["ffn_layer2"], np.maximum(hidden, 0))
    pooler = tree["contrastive_multimodal_pooler"]
    pooled = _attended(pooler["pool_attn"], pooler["pooling_attn_query"], x)
    found: NDArray[np.float64] = _norm(pooler["pool_attn_ln"], pooled)[0]
    return found


def _norm(own: Tree, x: NDArray[Any]) -> NDArray[Any]:
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    found: NDArray[Any] = (x - mean) / np.sqrt(variance + 1e-6) * (1 + own["scale"]) + own["bias"]
    return found


def _dense(own: Tree, x: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = x @ own["linear"]["w"] + own["bias"]["b"]
    return found


def _attended(own: Tree, asked: NDArray[Any], tokens: NDArray[Any]) -> NDArray[Any]:
    def inward(name: str, x: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = np.einsum("sd,dnh->snh", x, own[name]["w"]) + own[name]["b"]
        return found

    query, key, value = inward("query", asked), inward("key", tokens), inward("value", tokens)
    width = query.shape[-1]
    if "per_dim_scale" in own:
        learned = np.log1p(np.exp(own["per_dim_scale"]["per_dim_scale"].astype(np.float64)))
        query = query * (1.442695041 / np.sqrt(width)) * learned
    else:
        query = query * width**-0.5
    logits = 50 * np.tanh(np.einsum("tnh,snh->nts", query, key) / 50)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    read = np.einsum("nts,snh->tnh", weights, value)
    found: NDArray[Any] = np.einsum("tnh,dnh->td", read, own["post"]["w"]) + own["post"]["b"]
    return found
