"""Pseudo tokens by position: against transformers' CLIP text tower with embeddings replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.protocols import SplicedText

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextModelWithProjection

    from models.encoders.open_clip import OpenClipEncoder

DOLLAR = 259
"""The id of a lone `$` in CLIP's vocabulary, which LinCIR's code uses as the placeholder."""


@pytest.fixture(scope="module")
def transformers_tower(encoder: OpenClipEncoder) -> CLIPTextModelWithProjection:
    """The same weights in transformers' model, through its own parameter names."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    from tests.fakes.small_clip import CONFIG

    text = CONFIG["model_cfg"]["text_cfg"]
    config = CLIPTextConfig(
        vocab_size=text["vocab_size"],
        hidden_size=text["width"],
        intermediate_size=4 * text["width"],
        projection_dim=CONFIG["model_cfg"]["embed_dim"],
        num_hidden_layers=text["layers"],
        num_attention_heads=text["heads"],
        hidden_act="quick_gelu",
        eos_token_id=49407,
        bos_token_id=49406,
        pad_token_id=1,
    )
    theirs = CLIPTextModelWithProjection(config).eval()
    ours = encoder.model.state_dict()
    state: dict[str, torch.Tensor] = {
        "embeddings.token_embedding.weight": ours["token_embedding.weight"],
        "embeddings.position_embedding.weight": ours["positional_embedding"],
        "final_layer_norm.weight": ours["ln_final.weight"],
        "final_layer_norm.bias": ours["ln_final.bias"],
    }
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
             "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}  # fmt: skip
    for layer in range(text["layers"]):
        own, other = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            packed = ours[f"{own}attn.in_proj_{kind}"].chunk(3)
            for letter, part in zip("qkv", packed, strict=True):
                state[f"{other}self_attn.{letter}_proj.{kind}"] = part
            for name, their_name in names.items():
                state[f"{other}{their_name}.{kind}"] = ours[f"{own}{name}.{kind}"]
    theirs.text_model.load_state_dict(state)
    theirs.text_projection.load_state_dict({"weight": ours["text_projection"].T})
    return theirs


def replaced(
    tower: CLIPTextModelWithProjection, ids: torch.Tensor, tokens: torch.Tensor
) -> np.ndarray:
    """Features with every placeholder's embedding replaced, as LinCIR's code does it."""
    import torch

    def put_tokens(module: object, args: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        rows, columns = (ids == DOLLAR).nonzero(as_tuple=True)
        output[rows, columns] = tokens[rows]
        return output

    hook = tower.get_input_embeddings().register_forward_hook(put_tokens)
    try:
        with torch.inference_mode():
            return tower(input_ids=ids).text_embeds.numpy()
    finally:
        hook.remove()


def test_spliced_equals_transformers_with_replaced_embeddings(
    encoder: OpenClipEncoder, transformers_tower: CLIPTextModelWithProjection
) -> None:
    import open_clip
    import torch

    rest = ["that is red", "that shows two dogs, and a cat on a long wooden table", "", "that 5"]
    ids = open_clip.get_tokenizer("ViT-B-32")([f"a photo of $ {text}" for text in rest])
    assert (ids == DOLLAR).sum(dim=1).tolist() == [1, 1, 1, 1]
    tokens = torch.randn(len(rest), 40, generator=torch.Generator().manual_seed(1))
    got = encoder.encode_spliced([SplicedText("a photo of", text) for text in rest], tokens.numpy())
    np.testing.assert_allclose(got, replaced(transformers_tower, ids, tokens), atol=2e-6)


def test_plain_texts_equal_transformers(
    encoder: OpenClipEncoder, transformers_tower: CLIPTextModelWithProjection
) -> None:
    import open_clip
    import torch

    texts = ["a photo of a cat", "two", "word " * 100]
    ids = open_clip.get_tokenizer("ViT-B-32")(texts)
    with torch.inference_mode():
        expected = transformers_tower(input_ids=ids).text_embeds.numpy()
    np.testing.assert_allclose(encoder.encode_texts(texts), expected, atol=2e-6)


def test_a_users_dollar_stays_text(
    encoder: OpenClipEncoder, transformers_tower: CLIPTextModelWithProjection
) -> None:
    row = encoder.tower.tokens.spliced_row(SplicedText("a photo of", "that costs $ 5"))
    assert row.positions == (4,)
    assert row.ids.count(DOLLAR) == 1
    assert row.ids.index(DOLLAR) != 4
    tokens = np.random.default_rng(0).normal(size=(2, 40)).astype(np.float32)
    text = SplicedText("a photo of", "that costs $ 5")
    one, other = encoder.encode_spliced([text, text], tokens)
    assert np.abs(one - other).max() > 1e-3  # the token still counts


def test_special_tokens_spelled_out_do_not_end_a_text(encoder: OpenClipEncoder) -> None:
    with_marker, without = encoder.encode_texts(["red <end_of_text> dog", "red dog"])
    np.testing.assert_allclose(with_marker, without, atol=1e-6)


def test_an_overlong_text_keeps_its_pseudo_token(encoder: OpenClipEncoder) -> None:
    tokens = encoder.tower.tokens
    long = "word " * 100
    tail = tokens.spliced_row(SplicedText("a photo of", long))
    assert (len(tail.ids), tail.positions, tail.truncated) == (77, (4,), True)
    head = tokens.spliced_row(SplicedText(long, "that is red"))
    assert (len(head.ids), head.positions, head.truncated) == (77, (75,), True)
    assert head.ids[-1] == tokens.end
    fits = tokens.spliced_row(SplicedText("word " * 70, "word " * 4))
    assert (len(fits.ids), fits.truncated) == (77, False)
    assert encoder.overlong(["word", long, SplicedText(long, "")]) == [False, True, True]


def test_overlong_texts_are_reported(
    encoder: OpenClipEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    encoder.encode_texts(["short", "word " * 100, "a " * 90])
    assert "2 of 3 texts were cut at 77 tokens" in caplog.text


def test_small_batches_change_nothing(
    encoder: OpenClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.encoders import text_tower

    random = np.random.default_rng(0)
    texts = [SplicedText("a photo of", "red " * random.integers(0, 20)) for _ in range(37)]
    tokens = random.normal(size=(37, 40)).astype(np.float32)
    whole = encoder.encode_spliced(texts, tokens)
    monkeypatch.setitem(text_tower.TOKENS_PER_BATCH, "cpu", 30)
    np.testing.assert_allclose(encoder.encode_spliced(texts, tokens), whole, atol=2e-6)
    alone = [encoder.encode_spliced([text], tokens[i : i + 1])[0] for i, text in enumerate(texts)]
    np.testing.assert_allclose(np.stack(alone), whole, atol=2e-6)


def test_several_holes_take_the_same_token(encoder: OpenClipEncoder) -> None:
    import torch

    from models.encoders import text_tower

    tower = encoder.tower
    row = tower.tokens.parts_row(["", "on", "with"])
    assert row.ids[row.positions[0] + 1] == tower.tokens.ids("on")[0]
    assert row.positions == (1, 3)
    token = np.random.default_rng(0).normal(size=(1, 40)).astype(np.float32)
    ids, _, _ = text_tower.pad_rows([row])
    # Oracle: write the token into the embedding table at an unused id and encode plainly.
    table = encoder.model.token_embedding.weight
    kept = table[12_345].clone()
    with torch.no_grad():
        table[12_345] = torch.from_numpy(token[0])
    try:
        plain = ids.clone()
        plain[0, [1, 3]] = 12_345
        padded = torch.nn.functional.pad(plain, (0, 77 - plain.shape[1]))
        with torch.inference_mode():
            expected = encoder.model.encode_text(padded).numpy()
    finally:
        with torch.no_grad():
            table[12_345] = kept
    np.testing.assert_allclose(tower.encode_rows([row], token), expected, atol=2e-6)


def test_tokens_of_another_width_are_refused(encoder: OpenClipEncoder) -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 40\), not \(1, 39\)"):
        encoder.encode_spliced([SplicedText("a")], np.zeros((1, 39), dtype=np.float32))
