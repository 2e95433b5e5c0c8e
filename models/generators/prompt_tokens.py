"""How a prompt becomes token ids: one rule for answering, for training and for a server.

A chat model reads the prompt as one user message in its tokenizer's chat template; any other model
reads it as it is. An adapter that was trained on one form and asked in the other answers badly
without any error, so both forms are made here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def uses_chat(tokenizer: PreTrainedTokenizerBase, chat: str) -> bool:
    """Whether prompts are wrapped: `auto` does so if there is a chat template, `never` never."""
    return chat == "auto" and bool(tokenizer.chat_template)


def prompt_texts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], is_chat: bool
) -> list[str]:
    """The prompts as the model reads them, all the way to where its answer begins."""
    if not is_chat:
        return list(prompts)
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        for prompt in prompts
    ]


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], is_chat: bool
) -> list[list[int]]:
    """Token ids of texts from `prompt_texts`, with special tokens where none are written yet."""
    # A chat template writes its own special tokens; a second BOS would be a different prompt.
    return tokenizer(list(texts), add_special_tokens=not is_chat)["input_ids"]
