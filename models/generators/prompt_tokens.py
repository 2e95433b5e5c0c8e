"""How a prompt becomes token ids: one rule for answering, for training and for a server.

A chat model reads the prompt as one user message in its tokenizer's chat template; any other model
reads it as it is. An adapter that was trained on one form and asked in the other answers badly
without any error, so both forms are made here and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def uses_chat(tokenizer: PreTrainedTokenizerBase, chat: str) -> bool:
    """Whether prompts are wrapped: `auto` does so if there is a chat template, `never` never."""
    return chat == "auto" and bool(tokenizer.chat_template)


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer of a checkpoint has a chat template, told by its files.

    transformers looks for them in this order (`PreTrainedTokenizerBase.from_pretrained`).

    Raises:
        ValueError: `tokenizer_config.json` is not JSON.
    """
    named = (folder / "chat_template.jinja", *folder.glob("additional_chat_templates/*.jinja"))
    if found := [file for file in named if file.is_file()]:
        # Templates next to the default one make a mapping of names, which is never empty.
        return len(found) > 1 or found[0] != named[0] or bool(found[0].read_text(encoding="utf-8"))
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return False
    return bool(json.loads(config.read_text(encoding="utf-8")).get("chat_template"))


def has_thinking_switch(folder: Path) -> bool:
    """Whether the chat template of a checkpoint can be asked for answers without thinking."""
    files = (folder / "tokenizer_config.json", *folder.rglob("*.jinja"))
    texts = (file.read_text(encoding="utf-8") for file in files if file.is_file())
    return any("enable_thinking" in text for text in texts)


def prompt_texts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], is_chat: bool
) -> list[str]:
    """The prompts as the model reads them, all the way to where its answer begins.

    A template that can do so is asked for an answer without thinking aloud.
    """
    if not is_chat:
        return list(prompts)
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            tokenize=False,
            enable_thinking=False,
        )
        for prompt in prompts
    ]


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], is_chat: bool
) -> list[list[int]]:
    """Token ids of texts from `prompt_texts`, with special tokens where none are written yet."""
    # A chat template writes its own special tokens; a second BOS would be a different prompt.
    return tokenizer(list(texts), add_special_tokens=not is_chat)["input_ids"]
