"""Texts as CompoDiff's denoiser reads them, against open_clip and transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

TEXTS = ["", "paint the blue cross green", "remove it"]


def test_backbone_states_end_in_the_text_feature(repository: Path) -> None:
    """The state at end-of-text, projected, is open_clip's own text feature."""
    import torch

    from models.compodiff.token_states import BackboneStates
    from models.encoders.loading import load_encoder
    from models.encoders.spec import EncoderSpec

    folder = repository / "models/embedded/clip"
    encoder = load_encoder(EncoderSpec(name=str(folder), device="cpu"))
    source = BackboneStates(encoder.tower)
    found = source.states(TEXTS)
    assert found.mask is not None
    lengths = found.mask.sum(dim=1)
    ids = encoder.tokenizer(TEXTS)
    assert lengths.tolist() == (ids.argmax(dim=1) + 1).tolist()
    assert found.states.shape == (3, int(lengths.max()), source.width)
    with torch.no_grad():
        wanted = encoder.model.encode_text(ids)
        ends = found.states[torch.arange(3), lengths - 1]
        torch.testing.assert_close(
            ends @ encoder.model.text_projection, wanted, atol=1e-5, rtol=1e-4
        )
    alone = source.states(TEXTS[2:])
    row = found.states[2, : int(lengths[2])]
    torch.testing.assert_close(alone.states[0], row, atol=1e-5, rtol=1e-4)


def clip_text_model(folder: Path) -> Path:
    """A small random CLIP text model of transformers with a tokenizer of bytes."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder.mkdir()
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    marks = {"bos_token": words[-2], "eos_token": words[-1], "pad_token": "!"}
    kind = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(marks | kind))
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=20, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, bos_token_id=512, eos_token_id=513, pad_token_id=0,
    )  # fmt: skip
    CLIPTextModel(config).eval().save_pretrained(folder)
    return folder


def test_transformers_states_are_the_last_hidden_states(tmp_path: Path) -> None:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    from models.compodiff.token_states import TransformersStates

    folder = clip_text_model(tmp_path / "text")
    source = TransformersStates(str(folder), torch.device("cpu"))
    found = source.states(TEXTS)
    assert source.width == 20
    assert found.mask is None
    assert found.states.shape == (3, 77, 20)
    model, tokenizer = CLIPTextModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    for row, text in enumerate(TEXTS):
        given = tokenizer(text, return_tensors="pt", padding="max_length", truncation=True)
        with torch.no_grad():
            wanted = model(**given).last_hidden_state[0]
        torch.testing.assert_close(found.states[row], wanted, atol=1e-5, rtol=1e-4)


def test_queries_by_a_released_checkpoint(tmp_path: Path) -> None:
    """Features at their own scale, another text encoder, and a tenth of the reference."""
    import torch

    from models.compodiff.checkpoint import load_denoiser
    from models.compodiff.encoder import CompoDiffEncoder
    from models.compodiff.folder import CompoDiffError
    from models.compodiff.settings import SamplingSettings
    from models.compodiff.token_states import TransformersStates
    from tests.models.compodiff.released import random_state, write

    cpu = torch.device("cpu")
    texts = TransformersStates(str(clip_text_model(tmp_path / "text")), cpu)
    encoder = CompoDiffEncoder(load_denoiser(write(tmp_path / "net", random_state())), texts, cpu)
    references = np.random.default_rng(0).normal(size=(3, 24)).astype(np.float32)
    how = SamplingSettings(calls=3)
    mixed = encoder.queries(references, TEXTS, how)
    bare = encoder.queries(references, TEXTS, how.changed(reference_share=0.0))
    np.testing.assert_allclose(mixed, 0.9 * bare + 0.1 * references, atol=1e-4, rtol=1e-3)
    alone = encoder.queries(references[1:2], TEXTS[1:2], how)
    np.testing.assert_allclose(alone[0], mixed[1], atol=1e-3, rtol=1e-3)
    with pytest.raises(CompoDiffError, match="width 24 for 3 texts"):
        encoder.queries(references[:, :9], TEXTS, how)
