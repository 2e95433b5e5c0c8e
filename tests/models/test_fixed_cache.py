"""Decoding in memory of one size against the growing cache of transformers: the same logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PROMPTS, REPEATS, LENGTH, TOKENS = 3, 4, 9, 6
VOCABULARY = 50


@pytest.fixture(params=["opt", "llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """The language models of BLIP-2 and LLaVA, with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if request.param == "opt":
        options = {"ffn_dim": 40, "word_embed_proj_dim": 32, "vocab_size": VOCABULARY}
        return OPTForCausalLM(OPTConfig(**small, **options)).eval()
    config = LlamaConfig(
        **small, num_key_value_heads=2, intermediate_size=40, vocab_size=VOCABULARY
    )
    return LlamaForCausalLM(config).eval()


def logits(model: PreTrainedModel, fixed: bool) -> list[torch.Tensor]:
    """Of each step, after a left-padded prompt; lines leave the batch on the way."""
    import torch
    from transformers import DynamicCache

    from models.captioners.fixed_cache import with_room

    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(4, VOCABULARY, (PROMPTS, LENGTH), generator=draw)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    cache = DynamicCache(config=model.config)
    found = [model(ids, attention_mask=mask, past_key_values=cache).logits[:, -1]]
    if fixed:
        with_room(cache, REPEATS, TOKENS)
    else:
        cache.batch_repeat_interleave(REPEATS)
    mask = mask.repeat_interleave(REPEATS, dim=0)
    for step in range(TOKENS):
        if step == 3:
            kept = torch.tensor([0, 1, 5, 6, 7, 11])
            cache.batch_select_indices(kept)
            mask = mask[kept]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        taken = torch.randint(4, VOCABULARY, (len(mask), 1), generator=draw)
        positions = (mask.cumsum(1) - 1)[:, -1:]
        out = model(taken, attention_mask=mask, past_key_values=cache, position_ids=positions)
        found.append(out.logits[:, -1])
    return found


def test_logits_are_those_of_the_growing_cache(model: PreTrainedModel) -> None:
    import torch

    with torch.inference_mode():
        for own, expected in zip(logits(model, True), logits(model, False), strict=True):
            assert torch.equal(own, expected)


def test_no_step_takes_new_memory(model: PreTrainedModel) -> None:
    import torch
    from transformers import DynamicCache

    from models.captioners.fixed_cache import with_room

    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(torch.arange(4, 4 + LENGTH)[None], past_key_values=cache)
        with_room(cache, REPEATS, TOKENS)
        places = [layer.keys.data_ptr() for layer in cache.layers]
        for step in range(TOKENS):
            model(torch.full((REPEATS, 1), 7), past_key_values=cache)
            assert cache.get_seq_length() == LENGTH + step + 1
    assert [layer.keys.data_ptr() for layer in cache.layers] == places
