"""The card of a tuned adapter: the base that it fits, and its training data.

A LoRA adapter on another base, or asked in another form, gives bad answers and no error. The card
lies in the adapter's folder, next to the files of peft, and is checked whenever it is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

CARD_FILE: Final = "cirflow.json"

PromptForm: TypeAlias = Literal["chat", "raw"]
"""Whether prompts are wrapped in the chat template or put as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterCard:
    """The contents of `cirflow.json`.

    Attributes:
        base: Hub id of the base model, or a name made of its hash; never a path.
        base_weights_sha256: Hash of the base model's weights, see `weights_hash`.
        form: How prompts were put in training, and must be put in use.
        prompt_sha256: Hash of the prompt template of the task it was tuned for.
        data_sha256: Hash of all prompts and answers in their order.
        pairs: Source of the data -> number of prompts with answers.
        saw_benchmark_texts: Benchmarks whose annotated texts were among the data. Results made
            with the adapter are then not zero-shot.
        settings: Hyper-parameters of the training.
        versions: Library -> version.
        merged: Whether the folder holds the whole model with the adapter merged into it.
    """

    base: str
    base_weights_sha256: str
    form: PromptForm
    prompt_sha256: str
    data_sha256: str
    pairs: Mapping[str, int] = field(default_factory=dict)
    saw_benchmark_texts: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    merged: bool = False

    def as_json(self) -> str:
        """The text of the file."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    def require_fit(self, base_weights_sha256: str, form: PromptForm) -> None:
        """Refuse another base or another form of prompts.

        Raises:
            ValueError: Saying what the adapter was made for and what it was given.
        """
        if base_weights_sha256 != self.base_weights_sha256:
            raise ValueError(
                f"the adapter was tuned on {self.base} with weights "
                f"{self.base_weights_sha256[:12]}, but the base model loaded here has weights "
                f"{base_weights_sha256[:12]}; load the base that it was tuned on, or tune again"
            )
        self.require_form(form)

    def require_form(self, form: PromptForm) -> None:
        """Refuse another form of prompts.

        Raises:
            ValueError: Saying which form the adapter was tuned with.
        """
        if form != self.form:
            raise ValueError(
                f"the adapter was tuned on {self.form} prompts, but would be asked in {form} form; "
                "use the chat template (a server's chat endpoint) for chat, and neither for raw"
            )


def read_card(folder: str | Path) -> AdapterCard | None:
    """The card of an adapter or of a merged model; None where there is none.

    Raises:
        ValueError: The file is there and is not a card.
    """
    path = Path(folder, CARD_FILE)
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        seen = tuple(values.pop("saw_benchmark_texts"))
        return AdapterCard(saw_benchmark_texts=seen, **values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not the card of an adapter: {error}") from error


def benchmark_texts_seen(*folders: str | None) -> list[str]:
    """Benchmarks whose texts the models in these folders were tuned on, sorted."""
    cards = [read_card(folder) for folder in folders if folder]
    return sorted({name for card in cards if card for name in card.saw_benchmark_texts})


def weights_hash(identity: Mapping[str, str]) -> str:
    """One hash of a checkpoint's weight files, from its identity (file name -> sha256)."""
    weights = sorted(k for k in identity if k.endswith((".safetensors", ".bin")))
    return hashlib.sha256("\n".join(f"{k} {identity[k]}" for k in weights).encode()).hexdigest()
