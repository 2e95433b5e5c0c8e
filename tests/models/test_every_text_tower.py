"""Every text tower that open_clip can configure, made small: equal to open_clip or refused.

Widths, layers and vocabularies shrink; context, mask, pooling, projection, norms and cleaning stay.
"""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.encoders.spec import EncoderSpec
from models.protocols import SplicedText

if TYPE_CHECKING:
    from torch import nn

SIZES: Final = {"width": 40, "heads": 4, "layers": 2}
"""As small as a tower can be and still show what it attends to."""
IGNORED: Final = {*SIZES, "vocab_size", "mlp_ratio", "hf_tokenizer_name", "output_tokens"}
TEXTS: Final = ["a photo of a cat, red", "cat " * 99, "", "A Dog's café!"]


def distinct_towers() -> dict[str, tuple[str, dict[str, Any], bool, str]]:
    """A name of each kind: its text configuration, activation and kind of tokenizer."""
    import open_clip

    found = {}
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        text, quick = config["text_cfg"], bool(config.get("quick_gelu"))
        place = text.get("hf_tokenizer_name", "")
        kinds = {"SigLIP2": "gemma", "xlm-v": "xlm-v", "bert-base": "bert"}
        kind = next((own for part, own in kinds.items() if part in place), "mt5" if place else "")
        if not text.get("hf_model_name"):
            own = {key: value for key, value in text.items() if key not in IGNORED}
            key = json.dumps([own, quick, kind], sort_keys=True)
            found.setdefault(key, (name, copy.deepcopy(text), quick, kind))
    return found


def small(text: dict[str, Any], quick: bool, kind: str, folder: Path) -> tuple[nn.Module, Any]:
    """The model with such a text tower, random, and a tokenizer of its kind."""
    import torch
    from open_clip.model import _build_text_tower
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    from tests.fakes.hub_tokenizers import write_tokenizer
    from tests.fakes.newer_towers import MERGES

    length, options = text.get("context_length", 77), text.get("tokenizer_kwargs") or {}
    tokenizer: Any
    if kind:
        words = write_tokenizer(folder, kind)  # type: ignore[arg-type]
        tokenizer = HFTokenizer(str(folder), length, **options)
    else:
        pairs = folder / "bpe.txt.gz"
        pairs.write_bytes(gzip.compress("\n".join(["#version", *MERGES]).encode()))
        tokenizer = SimpleTokenizer(str(pairs), context_length=length, **options)
        words = tokenizer.vocab_size
    made = {key: value for key, value in text.items() if key != "mlp_ratio"}
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.text = _build_text_tower(24, {**made, **SIZES, "vocab_size": words}, quick)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval(), tokenizer


def test_towers_equal_open_clip_or_are_refused(tmp_path: Path) -> None:
    import torch

    from models.encoders.facts import why_no_pseudo_tokens
    from models.encoders.text_tower import TextTower, why_unsupported

    refused = {}
    for number, (name, text, quick, kind) in enumerate(distinct_towers().values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        model, tokenizer = small(text, quick, kind, folder)
        if reason := why_unsupported(model, tokenizer):
            refused[name] = reason
            assert why_no_pseudo_tokens(EncoderSpec(name=name)).endswith(f": {reason}")
            continue
        assert why_no_pseudo_tokens(EncoderSpec(name=name)) == "", name
        tower = TextTower(model, tokenizer)
        row = tower.tokens.spliced_row(SplicedText("a photo of", ", red"))
        whole = "a photo of cat, red"
        word = tower.tokens.row(whole).ids[row.positions[0]]
        token = tower.embedding.weight[word][None].detach().numpy()
        made = [
            tower.encode_rows([tower.tokens.row(each) for each in TEXTS]),
            tower.encode_rows([row], token),
        ]
        with torch.inference_mode():
            expected = model.text(tokenizer([*TEXTS, whole])).numpy()
        np.testing.assert_allclose(np.concatenate(made), expected, atol=2e-6, err_msg=name)
    assert refused == {"coca_base": "its text tower appends a class token to the words"}
