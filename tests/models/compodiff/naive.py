"""CompoDiff's denoiser in fp64 from named weights, one query, one head and one number at a time.

Written from the description of the released network: no line is shared with `models.compodiff`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

Weights = Mapping[str, np.ndarray]
HEADS_TO_CONTEXT = 8


def norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    centred = x - x.mean()
    return centred / math.sqrt((centred**2).mean() + 1e-5) * gain


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def mlp(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    for layer in ("0.0", "1.0"):
        x = silu(w[f"{name}.net.{layer}.weight"] @ x + w[f"{name}.net.{layer}.bias"])
    return w[f"{name}.net.2.weight"] @ x + w[f"{name}.net.2.bias"]


def time_embedding(w: Weights, step: int, dim: int) -> np.ndarray:
    half = dim // 2
    angles = [step * 10_000 ** (-k / (half - 1)) for k in range(half)]
    waves = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return mlp(w, "to_time_embeds.0.1", np.array(waves))


def turned(vector: np.ndarray, place: int) -> np.ndarray:
    """Rotary embedding of the first 32 (or fewer) numbers: neighbours are one complex number."""
    width = min(32, len(vector))
    result = vector.copy()
    for k in range(width // 2):
        angle = place * 10_000 ** (-2 * k / width)
        number = complex(vector[2 * k], vector[2 * k + 1]) * complex(
            math.cos(angle), math.sin(angle)
        )
        result[2 * k], result[2 * k + 1] = number.real, number.imag
    return result


def softmax(scores: list[float]) -> np.ndarray:
    grown = np.exp(np.array(scores) - max(scores))
    return grown / grown.sum()


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def self_attention(w: Weights, name: str, x: list[np.ndarray], heads: int) -> list[np.ndarray]:
    table = w["transformer.rel_pos_bias.relative_attention_bias.weight"]
    null_key, null_value = w[f"{name}.null_kv"]
    width = len(null_key)
    read = [norm(row, w[f"{name}.norm.g"]) for row in x]
    both = [w[f"{name}.to_kv.weight"] @ row for row in read]
    keys = [null_key] + [turned(kv[:width], place) for place, kv in enumerate(both)]
    values = [null_value] + [kv[width:] for kv in both]
    made = []
    for place, row in enumerate(read):
        queries = w[f"{name}.to_q.weight"] @ row
        heard = []
        for head in range(heads):
            query = unit(turned(queries[head * width : (head + 1) * width], place))
            scores = [
                4 * query @ (4 * unit(key)) + table[max(place - at, 0), head]
                for at, key in enumerate(keys)
            ]
            heard.append(sum(s * v for s, v in zip(softmax(scores), values, strict=True)))
        out = w[f"{name}.to_out.0.weight"] @ np.concatenate(heard)
        made.append(norm(out, w[f"{name}.to_out.1.g"]))
    return made


def cross_attention(
    w: Weights, name: str, x: list[np.ndarray], context: list[np.ndarray]
) -> list[np.ndarray]:
    null_key, null_value = w[f"{name}.null_kv"]
    width = len(null_key)
    both = [w[f"{name}.to_kv.weight"] @ row for row in context]
    half = HEADS_TO_CONTEXT * width
    made = []
    for row in x:
        queries = w[f"{name}.to_q.weight"] @ norm(row, w[f"{name}.norm.g"])
        heard = []
        for head in range(HEADS_TO_CONTEXT):
            part = slice(head * width, (head + 1) * width)
            keys = [null_key] + [kv[:half][part] for kv in both]
            values = [null_value] + [kv[half:][part] for kv in both]
            weights = softmax([queries[part] @ key / math.sqrt(width) for key in keys])
            heard.append(sum(s * v for s, v in zip(weights, values, strict=True)))
        out = w[f"{name}.to_out.0.weight"] @ np.concatenate(heard)
        made.append(norm(out, w[f"{name}.to_out.1.g"]))
    return made


def feed_forward(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    value, gate = np.split(w[f"{name}.1.weight"] @ norm(x, w[f"{name}.0.g"]), 2)
    return w[f"{name}.5.weight"] @ (value * silu(gate))


def denoised(
    w: Weights,
    noisy: np.ndarray,
    step: int,
    text: np.ndarray,
    reference: np.ndarray,
    region: np.ndarray | None,
    *,
    depth: int,
    heads: int,
) -> np.ndarray:
    """x0 (d,) of one row: text (L, W), region (side, side) or None for a network of none."""
    tokens = [noisy, time_embedding(w, step, len(noisy))]
    context = [w["to_text_embeds.0.weight"] @ t + w["to_text_embeds.0.bias"] for t in text]
    context.append(reference)
    if region is not None:
        context.append(mlp(w, "to_mask_embeds.1", region.reshape(-1)))
    for layer in range(depth):
        name = f"transformer.layers.{layer}"
        moves = self_attention(w, f"{name}.0", tokens, heads)
        tokens = [t + m for t, m in zip(tokens, moves, strict=True)]
        moves = cross_attention(w, f"{name}.1", tokens, context)
        tokens = [t + m for t, m in zip(tokens, moves, strict=True)]
        tokens = [t + feed_forward(w, f"{name}.2", t) for t in tokens]
    last = norm(tokens[0] / tokens[0].max(), w["transformer.norm.g"])
    return w["transformer.project_out.weight"] @ last
