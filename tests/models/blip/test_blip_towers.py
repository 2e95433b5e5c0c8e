"""Towers of an original file against transformers' own model with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_an_original_file_computes_what_transformers_does(tmp_path: Path) -> None:
    import torch
    from torch.nn import functional

    from models.blip.original import load_towers
    from models.published_state import read_state
    from tests.fakes.blip_files import HEAD_WIDTH, original_state, random_blip

    model = random_blip()
    torch.save({"model": original_state(model), "epoch": 3}, tmp_path / "blip.pth")
    state = read_state(tmp_path / "blip.pth", "model")
    towers, _ = load_towers(state, "blip.pth", head_width=HEAD_WIDTH)
    pixels = torch.randn(2, 3, 32, 32)
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
    mask = ids != 0
    with torch.no_grad():
        expected = model.vision_model(pixels).last_hidden_state
        tokens = towers.image_tokens(pixels)
        assert torch.allclose(tokens, expected, atol=1e-5)
        cosines = model(ids, pixels, use_itm_head=False, attention_mask=mask.long())[0]
        image = functional.normalize(towers.image_vector(tokens), dim=-1)
        text = functional.normalize(towers.text_vector(ids, mask), dim=-1)
        assert torch.allclose(image @ text.T, cosines, atol=1e-5)
        fused = model.text_encoder(
            ids, attention_mask=mask.long(), encoder_hidden_states=expected
        ).last_hidden_state
        assert torch.allclose(towers.text_states(ids, mask, tokens), fused, atol=1e-5)
        assert torch.allclose(
            towers.text_vector(ids, mask, tokens), model.text_proj(fused[:, 0]), atol=1e-5
        )
        assert not torch.allclose(fused, towers.text_states(ids, mask), atol=1e-2)


def test_padding_and_the_order_of_patches_change_nothing() -> None:
    import torch

    from models.blip.original import load_towers
    from tests.fakes.blip_files import HEAD_WIDTH, original_state, random_blip

    towers, _ = load_towers(original_state(random_blip()), "blip", head_width=HEAD_WIDTH)
    tokens = torch.randn(1, 17, 32)
    ids = torch.tensor([[18, 5, 6, 3]])
    longer = torch.tensor([[18, 5, 6, 3, 0, 0, 0]])
    with torch.no_grad():
        short = towers.text_vector(ids, ids != 0, tokens)
        assert torch.allclose(towers.text_vector(longer, longer != 0, tokens), short, atol=1e-5)
        mixed = tokens[:, torch.randperm(17)]
        assert torch.allclose(towers.text_vector(ids, ids != 0, mixed), short, atol=1e-5)


def test_a_published_shape_has_twelve_heads_and_its_own_epsilons() -> None:
    from transformers import BlipTextConfig, BlipVisionConfig

    from models.blip.shape import TextShape, VisionShape

    text, vision = TextShape().config, VisionShape().config
    assert (text.num_attention_heads, vision.num_attention_heads) == (12, 12)
    assert (text.layer_norm_eps, vision.layer_norm_eps) == (1e-12, 1e-6)
    # transformers' defaults differ: without our values other features come out of equal weights.
    assert (BlipTextConfig().num_attention_heads, BlipVisionConfig().layer_norm_eps) == (8, 1e-5)


def test_a_smaller_grid_is_resized_as_blip_does() -> None:
    import torch
    from torch.nn import functional

    from models.blip.original import load_towers, resized_positions
    from tests.fakes.blip_files import HEAD_WIDTH, original_state, random_blip

    model = random_blip(image_size=32)
    towers, _ = load_towers(original_state(model), "blip", image_size=48, head_width=HEAD_WIDTH)
    pixels = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        expected = model.vision_model(pixels, interpolate_pos_encoding=True).last_hidden_state
        assert torch.allclose(towers.image_tokens(pixels), expected, atol=1e-5)
    table = torch.arange(5.0).view(1, 5, 1)
    grown = resized_positions(table, 3)
    square = functional.interpolate(torch.tensor([[[[1.0, 2], [3, 4]]]]), (3, 3), mode="bicubic")
    assert grown.flatten().tolist() == pytest.approx([0.0, *square.flatten().tolist()])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("lost", "it lacks 1 of the weights .visual_encoder.norm.bias"),
        ("other", "text_encoder.surplus"),
        ("bent", r"vision_proj.weight \(24, 31\) instead of \(24, 32\)"),
        ("infinite", "not finite"),
    ],
)
def test_a_damaged_file_is_refused_by_name(fault: str, said: str) -> None:
    import torch

    from models.blip.original import load_towers
    from models.checkpoints import UnusableCheckpoint
    from tests.fakes.blip_files import HEAD_WIDTH, original_state, random_blip

    state = original_state(random_blip())
    if fault == "lost":
        del state["visual_encoder.norm.bias"]
    elif fault == "other":
        state["text_encoder.surplus"] = torch.zeros(1)
    elif fault == "bent":
        state["vision_proj.weight"] = torch.zeros(24, 31)
    else:
        state["text_proj.bias"] = torch.full((24,), float("nan"))
    with pytest.raises(UnusableCheckpoint, match=said):
        load_towers(state, "blip.pth", head_width=HEAD_WIDTH)


def test_weights_are_read_from_the_dict_of_a_file(tmp_path: Path) -> None:
    import torch

    from models.checkpoints import UnusableCheckpoint
    from models.published_state import read_state

    path = tmp_path / "some.ckpt"
    torch.save({"model": {"module.a": torch.ones(1)}, "epoch": 1}, path)
    assert read_state(path, "model", "module.").keys() == {"a"}
    with pytest.raises(UnusableCheckpoint, match="no entry 'CLIP'; it has epoch, model"):
        read_state(path, "CLIP")
    with pytest.raises(UnusableCheckpoint, match="more than tensors: epoch, model"):
        read_state(path)
    torch.save({"model": {"a": torch.ones(1)}, "trainer": Path("x")}, path)
    with pytest.raises(UnusableCheckpoint, match="cannot be read as weights"):
        read_state(path, "model")


def test_word_pieces_are_berts_with_blips_tokens() -> None:
    from transformers import BertTokenizer

    from models.blip.word_pieces import WordPieces
    from tests.fakes.blip_files import VOCABULARY, WORDS

    pieces = WordPieces(VOCABULARY)
    bert = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    texts = ["Make it REDDER", "a blue circle", " [FORWARD] make it blue"]
    ids = pieces(texts, over_image=False, longest=20)
    expected = bert(texts, padding=True, return_tensors="pt").input_ids
    assert ids.tolist() == expected.tolist()
    fused = pieces(texts, over_image=True, longest=20)
    assert fused[:, 0].tolist() == [len(WORDS) + 1] * 3
    assert fused[:, 1:].tolist() == ids[:, 1:].tolist()
    assert pieces(["make it blue"], over_image=True, longest=4).tolist() == [[18, 5, 6, 3]]
    assert pieces(["blue"], over_image=True, longest=9, marked=True).tolist() == [[18, 17, 7, 3]]
    assert 3 not in pieces(["[SEP] blue"], over_image=False, longest=9)[0, :-1]


def test_on_a_backbone_texts_are_read_over_its_tokens(tmp_path: Path) -> None:
    import torch

    from models.blip.backbone import bare_towers, towers_on_backbone
    from models.blip.shape import TextShape
    from models.encoders.loading import load_encoder
    from models.encoders.spec import EncoderSpec
    from models.published_state import fill
    from tests.fakes.small_networks import write_clip

    spec = EncoderSpec(name=str(write_clip(tmp_path)), preprocess="clip", device="cpu")
    towers, parts, words = towers_on_backbone(spec, layers=2, dropout=0.0, seed=0)
    clip = load_encoder(spec)
    pixels = torch.randn(2, 3, 32, 32)
    texts = ["make it blue", "a much longer text than the other"]
    ids = words(texts, over_image=True, longest=77)
    rows = [clip.tower.tokens.ids(text) for text in texts]
    assert ids[:, 0].tolist() == [words.encode] * 2
    assert ids[0, 1 : len(rows[0]) + 1].tolist() == rows[0]
    assert ids[0, len(rows[0]) + 2 :].eq(words.pad).all()
    with torch.no_grad():
        tokens = towers.image_tokens(pixels)
        assert torch.allclose(
            towers.image_vector(tokens), clip.model.encode_image(pixels), atol=1e-5
        )
        vectors = towers.text_vector(ids, ids != words.pad, tokens)
        short = words(texts[:1], over_image=True, longest=77)
        alone = towers.text_vector(short, short != words.pad, tokens[:1])
        assert torch.allclose(alone, vectors[:1], atol=1e-5)
        bare, again = bare_towers(parts.architecture, TextShape(**towers.shape.record), None)
        fill(bare, towers.state_dict(), "copy")
        assert torch.equal(bare.eval().text_vector(ids, ids != words.pad, tokens), vectors)
    assert again(texts, over_image=True, longest=77).tolist() == ids.tolist()


def test_texts_are_cleaned_as_blip_does() -> None:
    from models.blip.clean_texts import cleaned

    assert cleaned('Make it "RED";  (and  *round*): now! ~ok.\n') == "make it red and round now ok"
    assert cleaned("is it blue, or not?") == "is it blue, or not?"
    assert cleaned("a " * 40) == " ".join(["a"] * 30)
