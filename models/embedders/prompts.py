"""A query or a target as the text that a checkpoint's tokenizer reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.embedders.forms import Form, Mark
from models.spelling import agreed


def prompt_of(
    processor: Any, form: Form, pictures: int, text: str, instruction: str, *, target: bool
) -> str:
    """A prompt with one mark of the processor's for each picture.

    Args:
        processor: Of a checkpoint of transformers.
        form: How a query is put to the model.
        pictures: How many there are.
        text: The modification text; empty: none.
        instruction: What is asked for.
        target: Whether it is a gallery's picture and not a query.

    Raises:
        ValueError: A text holds the mark of a picture.
    """
    mark = str(processor.image_token)
    parts = form.user(pictures, text, instruction, target=target)
    if form.chat:
        messages = chat_messages(form.system_of(instruction), parts)
        prompt = str(processor.apply_chat_template(messages, add_generation_prompt=form.header))
    else:
        prompt = "".join(mark if isinstance(part, Mark) else part for part in parts)
    if (held := prompt.count(mark)) != pictures:
        raise ValueError(
            f"the prompt holds {mark} {held} {agreed(held, 'time')} for {pictures} "
            f"{agreed(pictures, 'picture')}; a text must not name it, and the chat template must "
            "place every picture"
        )
    return prompt + form.end


def chat_messages(system: str, parts: Sequence[str | Mark]) -> list[dict[str, Any]]:
    """A chat in the form that processors' templates take."""
    content = [
        {"type": "image"} if isinstance(part, Mark) else {"type": "text", "text": part}
        for part in parts
    ]
    said = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    return [*said, {"role": "user", "content": content}]
