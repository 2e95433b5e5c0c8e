"""The shipped text generator with more words, as the start of a training that points."""

from pathlib import Path
from typing import Final

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from embedded_world.recipes.text_model import load
from embedded_world.recipes.text_tokenizer import build_text_tokenizer
from embedded_world.words import PLURALS, POINTING_WORDS

NEAREST: Final = {
    **{plural: word for word, plural in PLURALS.items()},
    "above": "to the top",
    "below": "to the bottom",
    "two": "and",
}
"""New words, and the known one from which each starts."""
_SHARE: Final = 0.5
"""Length of a new row, as a share of the known one's: a new word must not be told at first."""


def build_pointing_tokenizer() -> PreTrainedTokenizerFast:
    """The text generator's tokenizer, and the words that point after all others."""
    return build_text_tokenizer(POINTING_WORDS)


@torch.no_grad()
def extend(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The shipped text generator with an embedding for each word that points."""
    model, known = load(folder)
    tokenizer = build_pointing_tokenizer()
    rows = model.resize_token_embeddings(len(tokenizer), mean_resizing=False).weight
    for word, other in NEAREST.items():
        new = tokenizer.convert_tokens_to_ids(word)
        if new >= len(known):
            rows[new] = _SHARE * rows[known.convert_tokens_to_ids(other)]
    return model, tokenizer
