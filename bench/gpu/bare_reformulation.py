"""The reformulation network of PyTorch's own modules, with the weights of the project's.

Cross-attention is `nn.MultiheadAttention`; everything else is open_clip's modules in a loop. It
computes the same loss, which the tests compare.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional

from models.instructcir.blocks import CrossAttention
from models.instructcir.network import ReformulationNetwork


class BareReformulation(nn.Module):
    """z of images with texts, and of images with the empty text."""

    def __init__(self, network: ReformulationNetwork) -> None:
        """Copy the weights of a network with the paper's settings."""
        super().__init__()
        copied = copy.deepcopy(network)
        self.image, self.text = copied.image, copied.text
        self.predictor = copied.predictor
        blocks = [block.block for block in copied.blocks]
        self.blocks = nn.ModuleList(blocks)
        self.norms = nn.ModuleList(block.cross.norm for block in copied.blocks)
        self.crosses = nn.ModuleList(_attention(block.cross) for block in copied.blocks)
        self.image.transformer.resblocks = nn.ModuleList()
        self._null = copied._null_ids

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) under texts (B or 1, L) -> z (B, d)."""
        text = self.text
        x = text.embedding(ids) + text.positional[: ids.shape[1]]
        later = torch.full((ids.shape[1],) * 2, -torch.inf, device=x.device, dtype=x.dtype).triu(1)
        for block in text.blocks:
            x = block(x, attn_mask=later)
        read = text.ln_final(x)
        ends = (ids == text.end).int().argmax(dim=1)
        pure = read[torch.arange(len(ids), device=ids.device), ends].float() @ text.projection
        unseen = torch.arange(ids.shape[1], device=ids.device) > ends[:, None]
        read, unseen = read.expand(len(pixels), -1, -1), unseen.expand(len(pixels), -1)
        x = self.image._embeds(pixels)
        for block, norm, cross in zip(self.blocks, self.norms, self.crosses, strict=True):
            x = x + block.ls_1(block.attention(q_x=block.ln_1(x)))
            asked = norm(x)
            x = x + cross(asked, read, read, key_padding_mask=unseen, need_weights=False)[0]
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
        with torch.autocast(pixels.device.type, enabled=False):
            seen = self.image._pool(x)[0].float() @ self.image.proj
            return self.predictor(torch.cat([seen, pure.float().expand(len(seen), -1)], dim=-1))

    def null(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) under the empty text -> z (B, d)."""
        return self(pixels, torch.tensor([self._null], device=pixels.device))


class BareStep:
    """A training step in a plain loop: loss, clipping, AdamW, moving average."""

    def __init__(self, network: ReformulationNetwork, device: torch.device, half: bool) -> None:
        """Start at a network's weights."""
        self.network = BareReformulation(network).to(device).train()
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self._optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-5, weight_decay=0.1)
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=half)

    def loss(self, batch: dict[str, torch.Tensor], temperature: float = 0.01) -> torch.Tensor:
        """One direction of InfoNCE; every other target is a negative."""
        with self._autocast:
            queries = self.network(batch["references"], batch["texts"])
            with torch.no_grad():
                targets = self.average.null(batch["targets"])
        queries = functional.normalize(queries.float(), dim=-1)
        targets = functional.normalize(targets.float(), dim=-1)
        own = torch.arange(len(queries), device=queries.device)
        return functional.cross_entropy(queries @ targets.T / temperature, own)

    def take(self, batch: dict[str, torch.Tensor]) -> None:
        """One step."""
        self._optimizer.zero_grad(set_to_none=True)
        self.loss(batch).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.network.parameters()), 0.004
            )


def _attention(cross: CrossAttention) -> nn.MultiheadAttention:
    """The same attention as the library's module."""
    width, text = cross.query.in_features, cross.key.in_features
    made = nn.MultiheadAttention(width, cross.heads, kdim=text, vdim=text, batch_first=True)
    made = made.to(cross.query.weight.device)
    separate = made.in_proj_weight is None
    with torch.no_grad():
        weights = [layer.weight for layer in (cross.query, cross.key, cross.value)]
        if separate:
            for name, weight in zip(("q", "k", "v"), weights, strict=True):
                getattr(made, f"{name}_proj_weight").copy_(weight)
        else:
            made.in_proj_weight.copy_(torch.cat(weights))
        made.in_proj_bias.copy_(
            torch.cat([layer.bias for layer in (cross.query, cross.key, cross.value)])
        )
        made.out_proj.load_state_dict(cross.out.state_dict())
    return made
