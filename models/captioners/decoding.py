"""Autoregressive decoding with a decoder-only transformers model.

A loop of our own rather than the library's `generate`: the prompt is run once and its
key-value cache repeated for every sample, rows leave the batch as soon as they are finished,
and tokens are drawn from streams of their own. Greedy results are tested equal to
`generate(do_sample=False)`.

Shapes: B prompts, R rows (B x repeats), L prompt length, V vocabulary, H width of embeddings.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from models.captioners.fixed_cache import with_room
from models.captioners.sampling import draw_tokens
from models.spelling import agreed

_COMPACT_BELOW: Final = 0.75
"""Finished rows are dropped once the running share of the batch falls below this; each time
costs one copy of the cache."""


class StopTest(Protocol):
    """Decides whether a row that has just produced `tokens` is complete."""

    def __call__(self, tokens: Sequence[int]) -> bool:
        """True when the text of `tokens` holds a stop string."""
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen: the most likely one, or a draw per row from its own stream.

    Attributes:
        seeds: One stream seed per row (`models.captioners.seeds.stream_seed`); empty: greedy.
        temperature: Softmax temperature of the draw.
        top_p: Nucleus mass of the draw.
        top_k: Tokens that the nucleus is taken from; 0: all.
    """

    seeds: tuple[int, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


GREEDY: Final = Sampling()


@dataclass(slots=True)
class Row:
    """The new tokens of one row and what ended it: `stop` or `length`."""

    tokens: list[int] = field(default_factory=list)
    finish_reason: str = "length"


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompt: dict[str, Tensor],
    *,
    repeats: int = 1,
    max_new_tokens: int,
    end_tokens: Sequence[int],
    sampling: Sampling = GREEDY,
    min_new_tokens: int = 0,
    is_complete: StopTest | None = None,
) -> list[Row]:
    """Continue every prompt `repeats` times.

    Args:
        model: A decoder-only language model in eval mode.
        prompt: `input_ids` (B, L) or `inputs_embeds` (B, L, H), and a left-padded
            `attention_mask` (B, L), on the model's device.
        repeats: Rows per prompt; the prompt itself is run once.
        max_new_tokens: Upper bound on new tokens per row.
        end_tokens: Ids that end a row; they are not part of its tokens.
        sampling: Greedy, or one seed for each of the B x repeats rows.
        min_new_tokens: No end token is allowed before this many tokens.
        is_complete: Optional test for stop strings, asked after every new token.

    Returns:
        B x repeats rows, prompt-major: the rows of prompt 0 come first.
    """
    mask_RL = prompt["attention_mask"]
    num_rows = mask_RL.shape[0] * repeats
    if sampling.seeds and len(sampling.seeds) != num_rows:
        seeds = agreed(len(sampling.seeds), "seed was", "seeds were")
        needed = f"{num_rows} {agreed(num_rows, 'row')}"
        raise ValueError(f"{len(sampling.seeds)} {seeds} given for {needed}")
    device = mask_RL.device
    forward = _forward_of(model)
    ends_E = torch.tensor(sorted(set(end_tokens)), dtype=torch.long, device=device)
    seeds_R = torch.tensor(sampling.seeds, dtype=torch.long, device=device)

    logits_RV, cache = forward(prompt, mask_RL, None)
    with_room(cache, repeats, max_new_tokens - 1)
    if repeats > 1:
        logits_RV = logits_RV.repeat_interleave(repeats, dim=0)
        mask_RL = mask_RL.repeat_interleave(repeats, dim=0)

    rows = [Row() for _ in range(num_rows)]
    running = torch.arange(num_rows, device=device)  # row index of each line of the batch
    alive_R = torch.ones(num_rows, dtype=torch.bool, device=device)
    for step in range(max_new_tokens):
        if step < min_new_tokens:
            logits_RV = logits_RV.index_fill(-1, ends_E, float("-inf"))
        if sampling.seeds:
            chosen_R = draw_tokens(
                logits_RV,
                seeds_R,
                step,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
            )
        else:
            chosen_R = logits_RV.argmax(dim=-1)
        alive_R &= _record(rows, running, chosen_R, alive_R, ends_E, is_complete)
        num_alive = int(alive_R.sum())
        if num_alive == 0 or step + 1 == max_new_tokens:
            break
        if num_alive < _COMPACT_BELOW * len(running):
            kept = alive_R.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            running, chosen_R, mask_RL = running[kept], chosen_R[kept], mask_RL[kept]
            seeds_R = seeds_R[kept] if sampling.seeds else seeds_R
            alive_R = alive_R[kept]
        mask_RL = torch.cat([mask_RL, mask_RL.new_ones(len(mask_RL), 1)], dim=1)
        logits_RV, cache = forward({"input_ids": chosen_R[:, None]}, mask_RL, cache)
    return rows


def _record(
    rows: list[Row],
    running: Tensor,
    chosen_R: Tensor,
    alive_R: Tensor,
    ends_E: Tensor,
    is_complete: StopTest | None,
) -> Tensor:
    """Append the chosen tokens to the rows still alive; returns which of them go on."""
    ended = torch.isin(chosen_R, ends_E).tolist()
    alive = alive_R.tolist()
    goes_on = list(alive)
    lines = zip(running.tolist(), chosen_R.tolist(), strict=True)
    for line, (row_index, token) in enumerate(lines):
        if not alive[line]:
            continue
        row = rows[row_index]
        if ended[line]:
            row.finish_reason, goes_on[line] = "stop", False
            continue
        row.tokens.append(token)
        if is_complete is not None and is_complete(row.tokens):
            row.finish_reason, goes_on[line] = "stop", False
    return torch.tensor(goes_on, dtype=torch.bool, device=alive_R.device)


def _forward_of(model: PreTrainedModel) -> Callable[..., tuple[Tensor, Cache]]:
    """A call that runs the model on new tokens and returns the last logits (R, V) and the cache."""
    accepted = inspect.signature(model.forward).parameters
    takes_positions = "position_ids" in accepted
    extra = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def forward(
        inputs: dict[str, Tensor], mask_RL: Tensor, cache: Cache | None
    ) -> tuple[Tensor, Cache]:
        tokens = {k: v for k, v in inputs.items() if k != "attention_mask"}
        num_new = next(iter(tokens.values())).shape[1]
        if takes_positions:
            # Left padding shifts positions; models such as LLaMA would count the padding.
            positions_RL = (mask_RL.cumsum(dim=1) - 1).clamp(min=0)
            tokens["position_ids"] = positions_RL[:, -num_new:]
        out = model(
            **tokens, attention_mask=mask_RL, past_key_values=cache, use_cache=True, **extra
        )
        return out.logits[:, -1], out.past_key_values

    return forward
