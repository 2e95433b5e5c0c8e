"""The twin encoder against transformers' BLIP text encoder and a naive computation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
    from transformers import BlipTextModel

    from models.reranking.twin_layers import TwinTextEncoder

WIDTH, IMAGE_WIDTH, LAYERS = 16, 12, 4


def _text_model(seed: int = 0) -> BlipTextModel:
    import torch
    from transformers import BlipTextConfig, BlipTextModel

    torch.manual_seed(seed)
    config = BlipTextConfig(
        vocab_size=40,
        hidden_size=WIDTH,
        encoder_hidden_size=IMAGE_WIDTH,
        intermediate_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=24,
        layer_norm_eps=1e-12,
        initializer_range=0.3,
        is_decoder=True,
        bos_token_id=30,
        sep_token_id=31,
        eos_token_id=31,
        pad_token_id=0,
    )
    return BlipTextModel(config, add_pooling_layer=False).eval()


def _twin(seed: int = 1) -> TwinTextEncoder:
    import torch

    from models.reranking.twin_layers import TwinTextEncoder

    torch.manual_seed(seed)
    return TwinTextEncoder(_text_model().config).eval()


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fused states of two texts of 6 and 4 tokens, ids, mask, and three images of 7 tokens."""
    import torch

    torch.manual_seed(2)
    ids = torch.randint(1, 30, (2, 6))
    mask = torch.ones(2, 6, dtype=torch.bool)
    ids[1, 4:], mask[1, 4:] = 0, False
    return torch.randn(2, 6, WIDTH), ids, mask, torch.randn(3, 7, IMAGE_WIDTH)


def test_tied_twins_with_equal_inputs_are_one_blip_text_encoder() -> None:
    """Merge layers that are set to the mean leave transformers' own computation."""
    import torch

    text, twin = _text_model(), _twin()
    twin.start_from(text)
    for layer in twin.encoder.layer:
        merge: Any = layer.crossattention.output.merge_layer
        if merge is not None:
            half = torch.eye(WIDTH) / 2
            merge.weight.data, merge.bias.data = torch.cat([half, half], 1), torch.zeros(WIDTH)
    _, ids, mask, images = _inputs()
    with torch.no_grad():
        first, second = twin(text.embeddings(input_ids=ids), ids, mask, images)
        for place, image in enumerate(images):
            expected = text(
                input_ids=ids,
                attention_mask=mask.long(),
                encoder_hidden_states=image.expand(2, -1, -1),
            ).last_hidden_state
            for states in (first, second):
                kept = mask[..., None]
                torch.testing.assert_close(
                    states[:, place] * kept, expected * kept, atol=1e-5, rtol=0
                )


def test_untied_twins_equal_a_naive_computation() -> None:
    """The description in words, one query, candidate, head and position at a time."""
    import torch

    twin = _twin()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.normal_(std=0.4)
        fused, ids, mask, images = _inputs()
        first, second = twin(fused, ids, mask, images)
        weights = twin.state_dict()
        for query in range(2):
            length = int(mask[query].sum())
            plain = twin.embeddings(input_ids=ids[query : query + 1])[0, :length]
            for place, image in enumerate(images):
                got = first[query, place, :length], second[query, place, :length]
                wanted = _naive(weights, fused[query, :length], plain, image)
                for states, expected in zip(got, wanted, strict=True):
                    torch.testing.assert_close(states, expected, atol=2e-4, rtol=1e-4)


def test_an_order_of_candidates_and_batch_mates_change_nothing() -> None:
    import torch

    twin = _twin()
    fused, ids, mask, images = _inputs()
    with torch.no_grad():
        together, _ = twin(fused, ids, mask, images)
        turned, _ = twin(fused, ids, mask, images.flip(0))
        alone, _ = twin(fused[:1], ids[:1], mask[:1], images[1:2])
    torch.testing.assert_close(turned.flip(1), together, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone[0, 0], together[0, 1], atol=1e-5, rtol=0)


def test_each_query_may_have_its_own_images_and_fewer_places_are_the_same_states() -> None:
    import torch

    twin = _twin()
    fused, ids, mask, images = _inputs()
    own = torch.stack([images, torch.randn(3, 7, IMAGE_WIDTH)])
    with torch.no_grad():
        whole = twin(fused, ids, mask, own)
        first = twin(fused, ids, mask, own, kept=1)
        for query in range(2):
            one = slice(query, query + 1)
            for branch, alone in enumerate(twin(fused[one], ids[one], mask[one], own[query])):
                torch.testing.assert_close(whole[branch][one], alone, atol=1e-5, rtol=0)
                torch.testing.assert_close(first[branch][one], alone[:, :, :1], atol=1e-5, rtol=0)


def test_fused_states_of_another_length_are_refused() -> None:
    twin = _twin()
    fused, ids, mask, images = _inputs()
    with pytest.raises(ValueError, match="both are of one text"):
        twin(fused[:, :5], ids, mask, images)


def test_names_are_the_published_ones() -> None:
    """The layout as its authors' code writes it: the mean below, merge layers above."""
    names = set(_twin().state_dict())
    block = {"self0.query", "self0.key", "self0.value", "self1.query", "self1.key", "self1.value"}
    block |= {f"output.{part}" for part in ("dense0", "dense1", "LayerNormA", "LayerNormB")}
    modules = {f"{kind}.{part}" for kind in ("attention", "crossattention") for part in block}
    modules |= {"intermediate.dense", "output.dense", "output.LayerNorm"}
    expected = {f"encoder.layer.{i}.{part}" for i in range(LAYERS) for part in modules}
    expected |= {f"encoder.layer.{i}.crossattention.output.merge_layer" for i in (2, 3)}
    expected = {f"{name}.{kind}" for name in expected for kind in ("weight", "bias")}
    expected |= {f"embeddings.{part}_embeddings.weight" for part in ("word", "position")}
    expected |= {"embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"}
    assert names == expected


def _naive(
    weights: dict[str, torch.Tensor],
    fused: torch.Tensor,
    plain: torch.Tensor,
    image: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attend(name: str, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            linear(f"{name}.{part}", each)
            for part, each in (("query", x), ("key", memory), ("value", memory))
        )
        out = torch.zeros_like(q)
        for head in range(4):
            own = slice(4 * head, 4 * head + 4)
            for row in range(len(x)):
                shares = torch.softmax(k[:, own] @ q[row, own] / math.sqrt(4), 0)
                out[row, own] = shares @ v[:, own]
        return out

    states = [fused, plain]
    for number in range(LAYERS):
        at = f"encoder.layer.{number}"
        for branch, (name, x) in enumerate(zip("AB", list(states), strict=True)):
            read = linear(
                f"{at}.attention.output.dense{branch}",
                attend(f"{at}.attention.self{branch}", x, x),
            )
            states[branch] = norm(f"{at}.attention.output.LayerNorm{name}", read + x)
        seen = [
            linear(
                f"{at}.crossattention.output.dense{branch}",
                attend(f"{at}.crossattention.self{branch}", x, image),
            )
            for branch, x in enumerate(states)
        ]
        joined = (seen[0] + seen[1]) / 2
        if number >= LAYERS // 2:
            joined = linear(f"{at}.crossattention.output.merge_layer", torch.cat(seen, -1))
        for branch, (name, x) in enumerate(zip("AB", list(states), strict=True)):
            x = norm(f"{at}.crossattention.output.LayerNorm{name}", joined + x)
            inner = torch.nn.functional.gelu(linear(f"{at}.intermediate.dense", x))
            states[branch] = norm(f"{at}.output.LayerNorm", linear(f"{at}.output.dense", inner) + x)
    return states[0], states[1]
