"""A text tower that reads only as far as it must, with room for pseudo tokens.

A CLIP text tower attends causally and is read out at the end-of-text token, so nothing behind
that token can change the feature. Cropping a batch to its longest text is therefore exact, and
captions average a dozen of CLIP's 77 positions. Two further exact savings: a string is encoded
once however often it occurs, and in the last block only the read-out position is computed.

Towers that attend both ways (MobileCLIP2, SigLIP2) attend to the padding too, and SigLIP2 is read
there, at the last position: their rows are padded to the whole context.

Shape legend: B batch, L tokens, W text-tower width, D joint space.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transformer import ResidualAttentionBlock
from torch import nn
from torch.nn import functional

from models.encoders.facts import CLASS_TOKEN, READ_AT, pooled_elsewhere
from models.encoders.text_tokens import TokenRow, tokens_of, why_no_tokens

if TYPE_CHECKING:
    from models.protocols import FloatArray

logger = logging.getLogger(__name__)

TOKENS_PER_BATCH: Final = {"cpu": 8_192, "cuda": 131_072}
"""Tokens in one forward pass: large enough to fill the device, small enough for its memory."""


class SpliceUnsupported(ValueError):
    """The text tower has no place where a pseudo token could be put."""


class TextTower(nn.Module):
    """The text half of an open_clip model, its features read at one position of each row."""

    def __init__(self, model: nn.Module, tokenizer: object) -> None:
        """Wrap `model` without copying weights; see `why_unsupported` for what can be wrapped."""
        super().__init__()
        reason = why_unsupported(model, tokenizer)
        if reason:
            raise SpliceUnsupported(reason)
        tower = getattr(model, "text", model)
        self.embedding: nn.Embedding = tower.token_embedding
        self.positional: nn.Parameter = tower.positional_embedding
        self.transformer: nn.Module = tower.transformer
        self.ln_final: nn.Module = tower.ln_final
        self.projection: nn.Linear | nn.Parameter | None = tower.text_projection
        self.register_buffer("causal_mask", tower.attn_mask, persistent=False)
        self.tokens = tokens_of(tokenizer, int(tower.context_length))
        self.width = self.embedding.embedding_dim
        self._reads_last = _pooling(tower) == "last"
        self._whole_rows = self._reads_last or self.causal_mask is None

    def forward(
        self,
        ids: torch.Tensor,
        lengths: torch.Tensor,
        holes: torch.Tensor | None = None,
        tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Encode padded token rows; differentiable in `tokens`.

        Args:
            ids: (B, L) token ids, anything behind the end-of-text token.
            lengths: (B,) tokens per row, end-of-text included.
            holes: (B, L) true where the row's pseudo token goes.
            tokens: (B, W) one pseudo token per row.

        Returns:
            (B, D) features, not normalised, in the tower's own precision.
        """
        ids, holes = self._rows(ids, lengths, holes)
        x = self._embedded(ids)
        if holes is not None and tokens is not None:
            x = torch.where(holes[..., None], tokens.to(x.dtype)[:, None, :], x)
        x = x + self.positional[: ids.shape[1]].to(x.dtype)
        x = self._read_out(x, self._places(lengths))
        x = self.ln_final(x)
        if self.projection is None:
            return x
        return self.projection(x) if isinstance(self.projection, nn.Linear) else x @ self.projection

    def states(self, ids: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every position after the last norm, for networks that read more than a feature.

        Args:
            ids: (B, L) as in `forward`.
            lengths: (B,) likewise.

        Returns:
            (B, L, W) states, and (B, L) whether a position lies no further than the one that
            features are read at. L is the context length where the rows are padded to it.
        """
        ids, _ = self._rows(ids, lengths, None)
        x = self._embedded(ids)
        x = self.transformer(
            x + self.positional[: ids.shape[1]].to(x.dtype), attn_mask=self._mask(ids.shape[1])
        )
        seen = torch.arange(ids.shape[1], device=ids.device) <= self._places(lengths)[:, None]
        return self.ln_final(x), seen

    def _rows(
        self, ids: torch.Tensor, lengths: torch.Tensor, holes: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The rows as the tower wants them: as they are, or padded to the context length."""
        if not self._whole_rows:
            return ids, holes
        more = (0, self.tokens.context_length - ids.shape[1])
        ids = functional.pad(ids, more)
        behind = torch.arange(ids.shape[1], device=ids.device) >= lengths[:, None]
        ids = ids.masked_fill(behind, self.tokens.pad)
        return ids, None if holes is None else functional.pad(holes, more)

    def _embedded(self, ids: torch.Tensor) -> torch.Tensor:
        return self.embedding(ids).to(self.transformer.get_cast_dtype())

    def _places(self, lengths: torch.Tensor) -> torch.Tensor:
        """The position (B,) that each row's feature is read at."""
        if self._reads_last:
            return torch.full_like(lengths, self.tokens.context_length - 1)
        return lengths - 1

    def _mask(self, length: int) -> torch.Tensor | None:
        return None if self.causal_mask is None else self.causal_mask[:length, :length]

    def _read_out(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Run all blocks on x (B, L, W) and return the rows at `places` (B,), (B, W)."""
        mask = self._mask(x.shape[1])
        blocks = list(self.transformer.resblocks)
        # A block subclass may do more than attention and MLP; only the plain one is cut short.
        shortcut = type(blocks[-1]) is ResidualAttentionBlock and self.transformer.batch_first
        if not shortcut:
            x = self.transformer(x, attn_mask=mask)
            return x[torch.arange(len(x), device=x.device), places]
        for block in blocks[:-1]:
            x = block(x, attn_mask=mask)
        return _last_block_at(blocks[-1], x, places, causal=mask is not None)

    def encode_rows(self, rows: Sequence[TokenRow], tokens: FloatArray | None = None) -> FloatArray:
        """Encode tokenised texts in big batches of similar length.

        Args:
            rows: Tokenised texts.
            tokens: (len(rows), W) pseudo tokens for rows with positions.

        Returns:
            (len(rows), D) float32 features in the order of `rows`.
        """
        device = self.positional.device
        chunks: list[torch.Tensor] = []
        whole = self.tokens.context_length if self._whole_rows else 0
        sizes = [max(whole, len(row.ids)) for row in rows]
        order = sorted(range(len(rows)), key=sizes.__getitem__)
        budget = TOKENS_PER_BATCH.get(device.type, TOKENS_PER_BATCH["cpu"])
        with torch.inference_mode():
            for batch in _batches(order, sizes, budget):
                chosen = [rows[i] for i in batch]
                ids, lengths, holes = (part.to(device) for part in pad_rows(chosen))
                spliced = None if tokens is None else torch.from_numpy(tokens[batch]).to(device)
                found = self(ids, lengths, None if spliced is None else holes, spliced)
                chunks.append(found.float())
            features = torch.cat(chunks).cpu().numpy()
        result = np.empty_like(features)
        result[order] = features
        return result


def why_unsupported(model: nn.Module, tokenizer: object) -> str:
    """Why `TextTower` cannot wrap this model, every obstacle in words; empty when it can."""
    tower = getattr(model, "text", model)
    if foreign := _why_foreign(tower):
        return foreign
    length = int(tower.context_length)
    found = [why_no_tokens(tokenizer, length)]
    if getattr(tower, "cls_emb", None) is not None:
        found.append(CLASS_TOKEN)
    if getattr(tower, "use_pad_mask", False):
        found.append("its text tower masks padding")
    pool = _pooling(tower)
    if pool not in READ_AT:
        found.append(pooled_elsewhere(pool))
    if pool == "argmax" and isinstance(tokenizer, HFTokenizer):
        found.append("its text feature is read at the largest id, which is not a text's end")
    if pool == "eos" and not found[0]:
        own = getattr(tower, "text_eos_id", getattr(tower, "eos_id", None))
        if own != (end := tokens_of(tokenizer, length).end):
            found.append(f"its text feature is read at id {own}, texts end with {end}")
    return "; ".join(each for each in found if each)


def why_unlike_clip(model: nn.Module, tokenizer: object) -> str:
    """Why a text tower is not read as CLIP's, every obstacle in words; empty when it is.

    CLIP's has byte pairs, attends causally and is read at the end-of-text token.
    """
    tower = getattr(model, "text", model)
    if foreign := _why_foreign(tower):
        return foreign
    found = []
    if not isinstance(tokenizer, SimpleTokenizer) or tokenizer.reduction_fn is not None:
        found.append(
            f"its tokenizer ({type(tokenizer).__name__}) is not CLIP's byte-pair tokenizer"
        )
    if getattr(tower, "attn_mask", None) is None:
        found.append("its text tower does not attend causally")
    if getattr(tower, "cls_emb", None) is not None:
        found.append(CLASS_TOKEN)
    pool = _pooling(tower)
    if pool not in ("argmax", "eos"):
        found.append(f"its text feature is pooled by {pool!r}, not read at the end-of-text token")
    return "; ".join(found)


def _why_foreign(tower: nn.Module) -> str:
    wanted = ("token_embedding", "positional_embedding", "transformer", "ln_final")
    own = all(hasattr(tower, name) for name in wanted) and hasattr(tower.transformer, "resblocks")
    return "" if own else f"its text tower ({type(tower).__name__}) is not one of open_clip's own"


def _pooling(tower: nn.Module) -> str | None:
    return getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))


def pad_rows(rows: Sequence[TokenRow]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stack rows: ids (B, L) int64, lengths (B,) int64 and pseudo-token holes (B, L) bool."""
    lengths = [len(row.ids) for row in rows]
    ids = np.zeros((len(rows), max(lengths)), dtype=np.int64)
    holes = np.zeros(ids.shape, dtype=bool)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        holes[number, list(row.positions)] = True
    return torch.from_numpy(ids), torch.tensor(lengths), torch.from_numpy(holes)


def _batches(order: Sequence[int], sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut indices sorted by length into batches of at most `budget` padded tokens."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * sizes[index] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _last_block_at(
    block: ResidualAttentionBlock, x: torch.Tensor, places: torch.Tensor, *, causal: bool
) -> torch.Tensor:
    """The block's output at one position per row: x (B, L, W), places (B,) -> (B, W)."""
    at = x[torch.arange(len(x), device=x.device), places][:, None]
    keys = block.ln_1(x)
    behind = None
    if causal:
        behind = torch.arange(x.shape[1], device=x.device) > places[:, None]
    attended, _ = block.attn(
        block.ln_1(at), keys, keys, key_padding_mask=behind, need_weights=False
    )
    at = at + block.ls_1(attended)
    return (at + block.ls_2(block.mlp(block.ln_2(at))))[:, 0]
