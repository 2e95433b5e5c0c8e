"""A text tower that reads only as far as it must, with room for pseudo tokens.

A CLIP text tower attends causally and is read out at the end-of-text token, so nothing behind
that token can change the feature. Cropping a batch to its longest text is therefore exact, and
captions average a dozen of CLIP's 77 positions. Two further exact savings: a string is encoded
once however often it occurs, and in the last block only the read-out position is computed.

Shape legend: B batch, L tokens, W text-tower width, D joint space.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import ResidualAttentionBlock
from torch import nn

from models.protocols import SplicedText

if TYPE_CHECKING:
    from models.protocols import FloatArray

logger = logging.getLogger(__name__)

TOKENS_PER_BATCH: Final = {"cpu": 8_192, "cuda": 131_072}
"""Tokens in one forward pass: large enough to fill the device, small enough for its memory."""


class SpliceUnsupported(ValueError):
    """The text tower has no place where a pseudo token could be put."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One tokenised text, from start-of-text to end-of-text, without padding.

    Attributes:
        ids: Token ids; the value at a pseudo-token position is never looked at.
        positions: Where pseudo tokens go, as indices into `ids`.
        truncated: Whether the text was longer than the tower's context.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...] = ()
    truncated: bool = False


class TextTokens:
    """Turns texts and spliced texts into `TokenRow`s for one tokenizer.

    Special tokens written out in a text ("<end_of_text>") are dropped: a user's text is text.
    """

    def __init__(self, tokenizer: SimpleTokenizer, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self.start: int = tokenizer.sot_token_id
        self.end: int = tokenizer.eot_token_id
        self.context_length = context_length

    def ids(self, text: str) -> list[int]:
        """Token ids of the bare text."""
        return [i for i in self._tokenizer.encode(text) if i not in self._special]

    def text(self, ids: Sequence[int]) -> str:
        """The text that ids stand for, as the tokenizer spells it."""
        return str(self._tokenizer.decode(list(ids))).strip()

    def row(self, text: str) -> TokenRow:
        """Tokenise a text; an overlong one is cut and keeps its end-of-text token."""
        body = self.ids(text)
        room = self.context_length - 2
        return TokenRow((self.start, *body[:room], self.end), truncated=len(body) > room)

    def spliced_row(self, text: SplicedText) -> TokenRow:
        """Tokenise a text with one pseudo token.

        An overlong text loses the end of `after` first, then the end of `before`; the pseudo
        token always survives, for without it the row would be another query.
        """
        before, after = self.ids(text.before), self.ids(text.after)
        room = self.context_length - 3
        truncated = len(before) + len(after) > room
        before = before[:room]
        after = after[: room - len(before)]
        ids = (self.start, *before, self.end, *after, self.end)
        return TokenRow(ids, positions=(1 + len(before),), truncated=truncated)

    def parts_row(self, parts: Sequence[str]) -> TokenRow:
        """Tokenise text parts with a pseudo token between each two of them.

        Used for masked training captions. What does not fit is cut, pseudo tokens included, so
        the result may have none; the caller decides what to do then.
        """
        body: list[int] = []
        holes: list[int] = []
        for number, part in enumerate(parts):
            if number:
                holes.append(len(body) + 1)
                body.append(self.end)
            body.extend(self.ids(part))
        room = self.context_length - 2
        kept = tuple(hole for hole in holes if hole <= room)
        return TokenRow((self.start, *body[:room], self.end), kept, truncated=len(body) > room)


class TextTower(nn.Module):
    """The text half of an open_clip model whose features are read at the end-of-text token."""

    def __init__(self, model: nn.Module, tokenizer: SimpleTokenizer) -> None:
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
        self.tokens = TextTokens(tokenizer, int(tower.context_length))
        self.width = self.embedding.embedding_dim

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
        dtype = self.transformer.get_cast_dtype()
        x = self.embedding(ids).to(dtype)
        if holes is not None and tokens is not None:
            x = torch.where(holes[..., None], tokens.to(dtype)[:, None, :], x)
        x = x + self.positional[: ids.shape[1]].to(dtype)
        x = self._read_out(x, lengths - 1)
        x = self.ln_final(x)
        if self.projection is None:
            return x
        return self.projection(x) if isinstance(self.projection, nn.Linear) else x @ self.projection

    def _read_out(self, x: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Run all blocks on x (B, L, W) and return the rows at `last`, (B, W)."""
        mask = self.causal_mask[: x.shape[1], : x.shape[1]]
        blocks = list(self.transformer.resblocks)
        # A block subclass may do more than attention and MLP; only the plain one is cut short.
        shortcut = type(blocks[-1]) is ResidualAttentionBlock and self.transformer.batch_first
        if not shortcut:
            x = self.transformer(x, attn_mask=mask)
            return x[torch.arange(len(x), device=x.device), last]
        for block in blocks[:-1]:
            x = block(x, attn_mask=mask)
        return _last_block_at(blocks[-1], x, last)

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
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        budget = TOKENS_PER_BATCH.get(device.type, TOKENS_PER_BATCH["cpu"])
        with torch.inference_mode():
            for batch in _batches(order, rows, budget):
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
    """Why `TextTower` cannot wrap this model, in words; empty when it can."""
    tower = getattr(model, "text", model)
    wanted = ("token_embedding", "positional_embedding", "transformer", "ln_final")
    lacking = [name for name in wanted if not hasattr(tower, name)]
    if lacking or not hasattr(tower.transformer, "resblocks"):
        return f"its text tower ({type(tower).__name__}) is not one of open_clip's own"
    if not isinstance(tokenizer, SimpleTokenizer) or tokenizer.reduction_fn is not None:
        return f"its tokenizer ({type(tokenizer).__name__}) is not CLIP's byte-pair tokenizer"
    if getattr(tower, "attn_mask", None) is None or getattr(tower, "cls_emb", None) is not None:
        return "its text tower does not attend causally to the words alone"
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    if pool not in ("argmax", "eos"):
        return f"its text feature is pooled by {pool!r}, not read at the end-of-text token"
    return ""


def pad_rows(rows: Sequence[TokenRow]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stack rows: ids (B, L) int64, lengths (B,) int64 and pseudo-token holes (B, L) bool."""
    lengths = [len(row.ids) for row in rows]
    ids = np.zeros((len(rows), max(lengths)), dtype=np.int64)
    holes = np.zeros(ids.shape, dtype=bool)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        holes[number, list(row.positions)] = True
    return torch.from_numpy(ids), torch.tensor(lengths), torch.from_numpy(holes)


def _batches(order: Sequence[int], rows: Sequence[TokenRow], budget: int) -> Iterator[list[int]]:
    """Cut indices sorted by length into batches of at most `budget` padded tokens."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * len(rows[index].ids) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _last_block_at(
    block: ResidualAttentionBlock, x: torch.Tensor, last: torch.Tensor
) -> torch.Tensor:
    """The block's output at one position per row: x (B, L, W), last (B,) -> (B, W)."""
    at = x[torch.arange(len(x), device=x.device), last][:, None]
    keys = block.ln_1(x)
    behind = torch.arange(x.shape[1], device=x.device) > last[:, None]
    attended, _ = block.attn(
        block.ln_1(at), keys, keys, key_padding_mask=behind, need_weights=False
    )
    at = at + block.ls_1(attended)
    return (at + block.ls_2(block.mlp(block.ln_2(at))))[:, 0]
