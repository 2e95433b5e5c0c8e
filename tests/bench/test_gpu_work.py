"""Operations and bytes that the GPU benchmark counts, against counts by hand."""

from __future__ import annotations

import pytest


def decoder() -> object:
    """Two blocks of width 4, MLP of 6 with a gate, half as many keys and values, 10 words."""
    from bench.gpu.work import Decoder

    return Decoder(layers=2, width=4, hidden=6, gated=True, kv_width=2, words=10, element=2)


def test_operations_of_an_answer_by_hand() -> None:
    one = decoder()
    # A block: queries and output 2 x 4 x 4, keys and values 2 x 4 x 2, MLP 3 x 4 x 6 = 120.
    assert one.block_weights == 240
    # The prompt's 3 tokens see 1 + 2 + 3 positions; the last one predicts a word.
    prompt = 2 * 3 * 240 + 2 * 4 * 10 + 4 * 2 * 4 * (1 + 2 + 3)
    assert one.flops(0, 3) == prompt
    # An answer of 3 tokens: the prompt predicts the first, two more steps the others.
    steps = 2 * (2 * 240 + 2 * 4 * 10) + 4 * 2 * 4 * (4 + 5)
    assert one.answer_flops(3, 3) == prompt + steps
    assert one.answer_flops(3, 3, answers=5) == prompt + 5 * steps
    assert one.answer_flops(3, 1, answers=5) == prompt


def test_bytes_of_an_answer_by_hand() -> None:
    one = decoder()
    weights = 2 * (240 + 4 * 10)
    position = 2 * 2 * 2 * 2  # keys and values, two bytes, two blocks, width 2
    assert one.answer_bytes(7, 3, 3) == 3 * weights + 7 * position * (4 + 5)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_operations_of_a_prompt_are_those_that_run(kind: str) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

    from bench.gpu.work import Decoder, counted_flops

    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if kind == "llama":
        config = LlamaConfig(**sizes, intermediate_size=48, num_key_value_heads=4)
        model = LlamaForCausalLM(config)
    else:
        config = OPTConfig(**sizes, ffn_dim=48, word_embed_proj_dim=32)
        model = OPTForCausalLM(config)
    model = model.eval().requires_grad_(False)
    ids = torch.randint(4, 50, (1, 9))
    one = Decoder.of(config, 4)
    found = counted_flops(lambda: model(input_ids=ids, logits_to_keep=1))
    # Written-out attention computes the later positions too, and masks them.
    masked = 4 * 2 * 32 * (9 * 9 - sum(range(1, 10)))
    rotary = 2 * 9 * 4 if kind == "llama" else 0  # angles: 4 frequencies at 9 positions
    assert found - one.flops(0, 9) == pytest.approx(masked + rotary, abs=2 * 9 * 4)


def test_operations_of_the_towers_by_hand() -> None:
    import time

    import torch

    from bench.gpu.case import Case
    from bench.gpu.towers import encoder_of
    from bench.gpu.work import counted_flops, weight_bytes
    from models.encoders.text_tower import pad_rows

    encoder = encoder_of("ViT-L-14", Case(torch.device("cpu"), True, time.time()), 2)
    n, w, t, d = 17, 64, 32, 24  # image tokens, widths of both towers, joint space
    attention = 2 * n * 4 * w * w + 2 * 2 * n * n * w
    image = 2 * 16 * (8 * 8 * 3) * w + 2 * (attention + 2 * n * 8 * w * w) + 2 * w * d
    found = counted_flops(lambda: encoder.model.encode_image(torch.randn(1, 3, 32, 32)))
    assert found == image
    row = encoder.tower.tokens.row("a dog beside two cats")
    tokens = len(row.ids)
    assert tokens == 7
    whole = 2 * tokens * 12 * t * t + 2 * 2 * tokens * tokens * t
    # The last block is read at one position: keys and values of all, the rest of that one.
    last = 2 * tokens * 2 * t * t + 2 * 2 * t * t + 2 * 2 * tokens * t + 2 * 8 * t * t
    ids, lengths, _ = pad_rows([row])
    assert counted_flops(lambda: encoder.tower(ids, lengths)) == whole + last + 2 * t * d
    block = 12 * t * t + 13 * t  # four biases of 3 t, t, 4 t, t, and two norms of 2 t
    tower = 49_408 * t + 77 * t + 2 * block + 2 * t + t * d
    assert weight_bytes(encoder.tower) == 4 * tower


def test_the_limit_is_the_one_that_takes_longest() -> None:
    from bench.gpu.records import Row, Work

    limits = {"matmul bf16": 100.0, "copy": 10.0}
    work = Work(flops=50.0, dtype="bf16", moved=20.0, uploaded=9.0)
    row = Row(part="p", what="w", unit="images", rate=0.25, work=work)
    # Half a second of products, two seconds of copying; nothing is known of uploads.
    assert row.limit(limits) == ("copy", 0.5)
    assert row.utilisation(limits) == 0.125
    assert row.limit({}) is None
    assert row.utilisation({"copy": 1.0}) is None
