"""Folders of small models with random weights, in the layout of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def small_text(vocabulary: int) -> dict[str, Any]:
    """Sizes of a language model of two layers."""
    return {
        **{"vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48},
        **{"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1},
        **{"max_position_embeddings": 256, "initializer_range": 0.2},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    }


def saved(folder: Path, model: Any, processor: Any) -> Path:
    """The folder, with a model and its processor in it."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
