"""CompoDiff's denoiser: from a noisy image feature, a text and a reference to the clean feature.

It is the network of the released checkpoint (`navervision/CompoDiff-Aesthetic`), parameter names
included; other widths and depths make a smaller one. Two tokens, the noisy feature and the time,
attend to each other and to a context: the text's token states, the reference and a region.

Shape legend: B batch, d width of image features and of all tokens, L text tokens, W their width,
H heads, C context tokens.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from models.protocols import Json

CROSS_HEADS: Final = 8
"""Heads of the cross-attention, whatever the number of the self-attention's."""
_EXPANSION: Final = 4
_COSINE_SCALE: Final = 16.0
_ROTATED: Final = 32
_BIAS_BUCKETS: Final = 32
_EPS: Final = 1e-5


@dataclass(frozen=True, slots=True)
class DenoiserShape:
    """Architecture of a denoiser; the defaults are the released one's.

    Attributes:
        dim: d, width of image features and of the network.
        text_width: W, width of the text's token states.
        depth: Layers.
        heads: Heads of the self-attention.
        head_width: Width of a head.
        region_side: Side of the binary picture that marks a region; 0: the network reads none.
    """

    dim: int = 768
    text_width: int = 1280
    depth: int = 12
    heads: int = 16
    head_width: int = 64
    region_side: int = 64

    @property
    def record(self) -> dict[str, Json]:
        """The shape in files and fingerprints."""
        return asdict(self)


class Denoiser(nn.Module):
    """Predicts the clean image feature x0; the parameters have the released names."""

    def __init__(self, shape: DenoiserShape) -> None:
        """A new network, initialised by torch's default generator."""
        super().__init__()
        self.shape = shape
        dim = shape.dim
        self.to_text_embeds = nn.Sequential(nn.Linear(shape.text_width, dim))
        self.to_time_embeds = nn.Sequential(nn.Sequential(_Sinusoids(dim), _Mlp(dim, dim)))
        if shape.region_side:
            self.to_mask_embeds = nn.Sequential(nn.Flatten(), _Mlp(shape.region_side**2, dim))
        self.transformer = _Transformer(shape)

    def forward(
        self,
        noisy: torch.Tensor,
        times: torch.Tensor,
        text: torch.Tensor,
        reference: torch.Tensor,
        text_mask: torch.Tensor | None = None,
        region: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The feature without its noise.

        Args:
            noisy: (B, d) features with noise.
            times: (B,) steps of the noise schedule.
            text: (B, L, W) token states of the texts.
            reference: (B, d) features of the reference images; zeros for none.
            text_mask: (B, L) true where a text has a token; None: everywhere, as released.
            region: (B, side, side) in {0, 1}; None for none. Only where the shape has a side.

        Returns:
            (B, d) predicted x0.
        """
        time = self.to_time_embeds(times.float())
        context = [self.to_text_embeds(text), reference[:, None]]
        side = self.shape.region_side
        if side:
            marked = noisy.new_zeros(len(noisy), side, side) if region is None else region
            context.append(self.to_mask_embeds(marked.float())[:, None])
        mask = None
        if text_mask is not None:
            # In front the null key, behind the reference and the region: always seen.
            mask = functional.pad(text_mask, (0, len(context) - 1), value=True)
            mask = functional.pad(mask, (1, 0), value=True)[:, None, None]
        tokens = torch.stack((noisy, time), dim=1)
        return self.transformer(tokens, torch.cat(context, dim=1), mask)[:, 0]


class _Transformer(nn.Module):
    def __init__(self, shape: DenoiserShape) -> None:
        super().__init__()
        dim = shape.dim
        self.rel_pos_bias = _PositionBias(shape.heads)
        self.layers = nn.ModuleList(
            nn.ModuleList([_SelfAttention(shape), _CrossAttention(shape), _feed_forward(dim)])
            for _ in range(shape.depth)
        )
        self.norm = _Norm(dim)
        self.project_out = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: torch.Tensor, context: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Tokens (B, 2, d), context (B, C, d), mask (B, 1, 1, 1 + C) -> (B, 2, d)."""
        bias = self.rel_pos_bias(x.shape[1])
        for attention, cross, feed_forward in self.layers:
            x = attention(x, bias) + x
            x = cross(x, context, mask) + x
            x = feed_forward(x) + x
        # The released network divides by the signed maximum before its last norm.
        return self.project_out(self.norm(x / x.amax(dim=-1, keepdim=True).detach()))


class _SelfAttention(nn.Module):
    """H query heads, one shared key and value head; similarities are cosines times 16."""

    def __init__(self, shape: DenoiserShape) -> None:
        super().__init__()
        inner = shape.heads * shape.head_width
        self.heads = shape.heads
        self.norm = _Norm(shape.dim)
        self.null_kv = nn.Parameter(torch.randn(2, shape.head_width))
        self.to_q = nn.Linear(shape.dim, inner, bias=False)
        self.to_kv = nn.Linear(shape.dim, 2 * shape.head_width, bias=False)
        self.rotary_emb = _Rotation(min(_ROTATED, shape.head_width))
        self.to_out = nn.Sequential(nn.Linear(inner, shape.dim, bias=False), _Norm(shape.dim))

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Tokens (B, n, d), bias (H, n, n + 1) -> (B, n, d)."""
        x = self.norm(x)
        queries = _in_heads(self.to_q(x), self.heads)
        keys, values = (_in_heads(part, 1) for part in self.to_kv(x).chunk(2, dim=-1))
        queries, keys = self.rotary_emb(queries), self.rotary_emb(keys)
        keys, values = _with_null(self.null_kv, keys, values)
        attended = functional.scaled_dot_product_attention(
            functional.normalize(queries, dim=-1),
            functional.normalize(keys, dim=-1).expand(-1, self.heads, -1, -1),
            values.expand(-1, self.heads, -1, -1),
            attn_mask=bias.to(queries.dtype),
            scale=_COSINE_SCALE,
        )
        return self.to_out(_joined(attended))


class _CrossAttention(nn.Module):
    """Attention to the context, which is not normalised."""

    def __init__(self, shape: DenoiserShape) -> None:
        super().__init__()
        inner = CROSS_HEADS * shape.head_width
        self.norm = _Norm(shape.dim)
        self.null_kv = nn.Parameter(torch.randn(2, shape.head_width))
        self.to_q = nn.Linear(shape.dim, inner, bias=False)
        self.to_kv = nn.Linear(shape.dim, 2 * inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, shape.dim, bias=False), _Norm(shape.dim))

    def forward(
        self, x: torch.Tensor, context: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Tokens (B, n, d), context (B, C, d), mask (B, 1, 1, 1 + C) -> (B, n, d)."""
        queries = _in_heads(self.to_q(self.norm(x)), CROSS_HEADS)
        both = self.to_kv(context).chunk(2, dim=-1)
        keys, values = _with_null(self.null_kv, *(_in_heads(part, CROSS_HEADS) for part in both))
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self.to_out(_joined(attended))


class _Rotation(nn.Module):
    """Rotary positions on the first dimensions, neighbouring pairs."""

    freqs: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 1.0 / 10_000 ** (torch.arange(0, width, 2) / width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, n, w) -> the same, each position turned by its angle."""
        angles = torch.arange(x.shape[2], device=x.device)[:, None] * self.freqs
        sines, cosines = angles.sin(), angles.cos()
        turned, rest = x[..., : 2 * len(self.freqs)], x[..., 2 * len(self.freqs) :]
        even, odd = turned[..., 0::2], turned[..., 1::2]
        pairs = (even * cosines - odd * sines, odd * cosines + even * sines)
        return torch.cat((torch.stack(pairs, dim=-1).flatten(-2).to(x.dtype), rest), dim=-1)


class _PositionBias(nn.Module):
    """T5's relative bias, causal direction: one table for all layers."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(_BIAS_BUCKETS, heads)

    def forward(self, tokens: int) -> torch.Tensor:
        """(H, n, n + 1): the bias of n queries on the null key and n keys.

        A bucket is a distance: so few tokens never reach T5's logarithmic buckets.
        """
        place = torch.arange(tokens + 1, device=self.relative_attention_bias.weight.device)
        distance = (place[:tokens, None] - place[None, :]).clamp(min=0)
        return self.relative_attention_bias(distance).permute(2, 0, 1)


class _Norm(nn.Module):
    """Layer norm with a gain and no bias, in fp32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x.float(), self.g.shape, self.g, eps=_EPS)


class _Sinusoids(nn.Module):
    """Sines and cosines of a step number, half the width each."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.half = dim // 2

    def forward(self, times: torch.Tensor) -> torch.Tensor:
        """(B,) float -> (B, d)."""
        places = torch.arange(self.half, device=times.device, dtype=times.dtype)
        angles = times[:, None] * torch.exp(places * -(math.log(10_000) / (self.half - 1)))
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class _Mlp(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = 2 * outputs
        self.net = nn.Sequential(
            nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU()),
            nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU()),
            nn.Linear(hidden, outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class _SwiGlu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * functional.silu(gate)


def _feed_forward(dim: int) -> nn.Sequential:
    """The released places of its parts: 3 and 4 are a norm and a dropout that are switched off."""
    hidden = _EXPANSION * dim
    return nn.Sequential(
        _Norm(dim),
        nn.Linear(dim, 2 * hidden, bias=False),
        _SwiGlu(),
        nn.Identity(),
        nn.Identity(),
        nn.Linear(hidden, dim, bias=False),
    )


def _in_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, n, H * w) -> (B, H, n, w)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _joined(x: torch.Tensor) -> torch.Tensor:
    """(B, H, n, w) -> (B, n, H * w)."""
    return x.transpose(1, 2).flatten(-2)


def _with_null(
    null: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A learnt key and value (2, w) in front of keys and values (B, H, n, w)."""
    shape = (*keys.shape[:2], 1, keys.shape[3])
    first, second = (each.to(keys.dtype).expand(shape) for each in null.unbind())
    return torch.cat((first, keys), dim=2), torch.cat((second, values), dim=2)
