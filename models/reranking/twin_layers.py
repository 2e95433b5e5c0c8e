"""The twin text encoder of candidate re-ranking (Liu et al., TMLR 2024), in its published layout.

Two branches read one candidate image. The first starts from the text as the filter fused it with
the reference image, the second from the plain text. Each layer has, for each branch, a
self-attention and a cross-attention to the candidate's tokens. Behind the latter the branches are
joined, by their mean in the lower half of the layers and by a trained layer in the upper half; the
joined states are added to each branch's own. The feed-forward part is shared.

The parts are those of transformers' BLIP, so that names and arithmetic are BLIP's.
Shape legend: Q queries, C candidates, L text tokens, M image tokens, W text and V image width.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import torch
from torch import nn
from transformers import BlipTextConfig, BlipTextModel
from transformers.models.blip.modeling_blip_text import (
    BlipTextEmbeddings,
    BlipTextIntermediate,
    BlipTextOutput,
    BlipTextSelfAttention,
)

Branches: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""States of the branch from the fused text and of the branch from the plain text."""

OWN_IMAGES: Final = 4
"""Axes of images where each query has its own."""
TWIN_NAMES: Final = {
    "self": ("self0", "self1"),
    "dense": ("dense0", "dense1"),
    "LayerNorm": ("LayerNormA", "LayerNormB"),
}
"""Part of a BLIP attention block -> the two parts that stand in its place."""


class TwinJoin(nn.Module):
    """What follows an attention of both branches: a linear layer, residual and norm for each."""

    def __init__(self, config: BlipTextConfig, joined: str = "") -> None:
        """Make it.

        Args:
            config: Sizes of the text encoder.
            joined: How the branches are joined: `mean`, `layer`, or not (empty).
        """
        super().__init__()
        width = config.hidden_size
        self.dense0, self.dense1 = (nn.Linear(width, width) for _ in range(2))
        self.LayerNormA, self.LayerNormB = (
            nn.LayerNorm(width, eps=config.layer_norm_eps) for _ in range(2)
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.merge_layer = nn.Linear(2 * width, width) if joined == "layer" else None
        self._joined = bool(joined)

    def forward(self, attended: Branches, states: Branches) -> Branches:
        """Attended and incoming states (..., L, W) of both branches -> outgoing states."""
        first, second = self.dense0(attended[0]), self.dense1(attended[1])
        if self.merge_layer is not None:
            first = second = self.dropout(self.merge_layer(torch.cat([first, second], dim=-1)))
        elif self._joined:
            first = second = self.dropout((first + second) / 2)
        else:
            first, second = self.dropout(first), self.dropout(second)
        return self.LayerNormA(first + states[0]), self.LayerNormB(second + states[1])


class TwinAttention(nn.Module):
    """An attention for each branch, to its own text or to the candidate."""

    def __init__(self, config: BlipTextConfig, joined: str = "") -> None:
        """Make it; one that joins the branches looks at the candidate."""
        super().__init__()
        crossed = bool(joined)
        self.self0, self.self1 = (BlipTextSelfAttention(config, crossed) for _ in range(2))
        self.output = TwinJoin(config, joined)

    def read(self, states: Branches, mask: torch.Tensor) -> Branches:
        """Self-attention; states (Q, C or 1, L, W), mask (Q, L) true where a token is."""
        rows = states[0].shape
        blocked = torch.zeros(mask.shape, dtype=states[0].dtype, device=mask.device)
        blocked = blocked.masked_fill(~mask, torch.finfo(blocked.dtype).min)
        blocked = blocked.repeat_interleave(rows[1], dim=0)[:, None, None]

        def one(attention: nn.Module, own: torch.Tensor) -> torch.Tensor:
            context: torch.Tensor = attention(own.flatten(0, 1), attention_mask=blocked)[0]
            return context.view(rows)

        return self.output((one(self.self0, states[0]), one(self.self1, states[1])), states)

    def look(self, states: Branches, images: torch.Tensor) -> Branches:
        """Cross-attention; states (Q, C or 1, L, W) -> states (Q, C, L, W).

        Args:
            states: Of both branches.
            images: (C, M, V), which all queries look at, or (Q, C, M, V), each query's own.

        A text position does not see the others here, so those of all queries are put to a candidate
        at once, where they look at the same: its keys and values are computed once.
        """
        queries, _, length, width = states[0].shape
        count = images.shape[-3]
        own_images = images.ndim == OWN_IMAGES

        def one(attention: nn.Module, own: torch.Tensor) -> torch.Tensor:
            asked = own.expand(-1, count, -1, -1)
            if own_images:
                looked = attention(asked.flatten(0, 1), encoder_hidden_states=images.flatten(0, 1))
                return looked[0].view(queries, count, length, width)
            asked = asked.transpose(0, 1).reshape(count, queries * length, width)
            context: torch.Tensor = attention(asked, encoder_hidden_states=images)[0]
            return context.view(count, queries, length, width).transpose(0, 1)

        return self.output((one(self.self0, states[0]), one(self.self1, states[1])), states)


class TwinLayer(nn.Module):
    """One layer of both branches."""

    def __init__(self, config: BlipTextConfig, joined: str) -> None:
        """Make it; `joined` is `mean` or `layer`."""
        super().__init__()
        self.attention = TwinAttention(config)
        self.crossattention = TwinAttention(config, joined)
        self.intermediate = BlipTextIntermediate(config)
        self.output = BlipTextOutput(config)

    def forward(
        self, states: Branches, mask: torch.Tensor, images: torch.Tensor, kept: int | None = None
    ) -> Branches:
        """States (Q, C or 1, L, W) of both branches -> states (Q, C, L, W).

        Only the first `kept` places are computed behind the self-attention, where that is given.
        """
        read = self.attention.read(states, mask)
        first, second = self.crossattention.look(
            (read[0][:, :, :kept], read[1][:, :, :kept]), images
        )
        return (
            self.output(self.intermediate(first), first),
            self.output(self.intermediate(second), second),
        )


class TwinStack(nn.Module):
    """The layers; those of the lower half join by the mean, those of the upper half are trained."""

    def __init__(self, config: BlipTextConfig) -> None:
        """Make them."""
        super().__init__()
        half = config.num_hidden_layers // 2
        self.layer = nn.ModuleList(
            TwinLayer(config, "mean" if number < half else "layer")
            for number in range(config.num_hidden_layers)
        )


class TwinTextEncoder(nn.Module):
    """Word embeddings and twin layers; a state dict has the published names."""

    def __init__(self, config: BlipTextConfig) -> None:
        """Make it with random weights as BERT's: normal of the config's range, no biases."""
        super().__init__()
        self.config = config
        self.embeddings = BlipTextEmbeddings(config)
        self.encoder = TwinStack(config)
        self.apply(self._start)

    def forward(
        self,
        fused: torch.Tensor,
        ids: torch.Tensor,
        mask: torch.Tensor,
        images: torch.Tensor,
        kept: int | None = None,
    ) -> Branches:
        """Read candidates with queries.

        Args:
            fused: (Q, L, W) the filter's states of text and reference, z_t.
            ids: (Q, L) token ids, the encoding token at place 0.
            mask: (Q, L) bool, true where a token is.
            images: (C, M, V) tokens of the candidates, each read with every query; or
                (Q, C, M, V), each query's own.
            kept: First places whose last states are wanted; None: all.

        Returns:
            (Q, C, L or kept, W) states of both branches.

        Raises:
            ValueError: the fused states are of another length than the text.
        """
        if fused.shape[:2] != ids.shape:
            raise ValueError(
                f"fused states of shape {tuple(fused.shape)} do not belong to token ids of shape "
                f"{tuple(ids.shape)}; both are of one text"
            )
        states = fused[:, None], self.embeddings(input_ids=ids)[:, None]
        *layers, last = self.encoder.layer
        for layer in layers:
            states = layer(states, mask, images)
        found: Branches = last(states, mask, images, kept)
        return found

    def start_from(self, text: BlipTextModel) -> None:
        """Copy a BLIP text encoder into both branches; layers that join stay as they are.

        Raises:
            RuntimeError: it has parts of other sizes.
        """
        lacking, unknown = self.load_state_dict(
            twin_names(text.state_dict()), strict=False, assign=False
        )
        wrong = [name for name in lacking if ".merge_layer." not in name] + list(unknown)
        if wrong:
            raise RuntimeError(f"not the text encoder of a BLIP: {', '.join(sorted(wrong)[:8])}")

    def _start(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def twin_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a BLIP text encoder under the names of the twin one; shared parts keep theirs."""
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        parts = name.split(".")
        inside = any(part in ("attention", "crossattention") for part in parts)
        place = next((i for i, part in enumerate(parts) if inside and part in TWIN_NAMES), None)
        if place is None:
            renamed[name] = tensor
            continue
        for twin in TWIN_NAMES[parts[place]]:
            renamed[".".join([*parts[:place], twin, *parts[place + 1 :]])] = tensor
    return renamed
