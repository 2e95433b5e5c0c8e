"""peft adapters, loaded so that none of their weights are made up or left out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.checkpoints import ADAPTER, UnusableCheckpoint, checkpoint_folder
from models.loaded_weights import UNREADABLE, first_line, in_words, require_finite
from models.weight_formats import formats_of, require_plain, without_data

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn


def load_adapter(model: nn.Module, adapter: str) -> PeftModel:
    """A peft adapter on a model, with exactly the weights that it needs.

    Raises:
        UnusableCheckpoint: The adapter's weights are not those of its configuration on this model.
    """
    from peft import PeftModel

    try:
        tuned = PeftModel.from_pretrained(model, adapter)
        _require_fit(adapter, tuned)
    except UNREADABLE as error:
        raise _misfit(adapter, error) from error
    require_finite(adapter, tuned)
    return tuned


def check_adapter_weights(model: Any, adapter: str) -> None:
    """Compare names and shapes of an adapter's weights with those that it needs; none is read.

    Args:
        model: A model without data, on torch's `meta` device.
        adapter: Directory or hub id.

    Raises:
        UnusableCheckpoint: They differ.
    """
    from peft import PeftConfig, get_peft_model

    try:
        _require_fit(adapter, get_peft_model(model, PeftConfig.from_pretrained(adapter)))
    except UNREADABLE as error:
        raise _misfit(adapter, error) from error


def _misfit(adapter: str, error: BaseException) -> UnusableCheckpoint:
    if isinstance(error, UnusableCheckpoint):
        return error
    return UnusableCheckpoint(
        f"the adapter {adapter!r} does not fit the model: {first_line(error)}; take the adapter "
        "that was trained on this model"
    )


def _require_fit(adapter: str, tuned: Any) -> None:
    from peft import get_peft_model_state_dict

    # Embeddings belong to an adapter only if it brings some.
    wanted = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    needed = {name: tensor.shape for name, tensor in wanted.items()}
    file = _weights_file(checkpoint_folder(adapter))
    stored = without_data(file)
    found = {name: tensor.shape for name, tensor in stored.items()}
    report = {
        "missing_keys": needed.keys() - found.keys(),
        "unexpected_keys": {n for n in found.keys() - needed.keys() if "lora_" in n},
        "mismatched_keys": {n for n in needed.keys() & found.keys() if needed[n] != found[n]},
    }
    if any(report.values()):
        raise UnusableCheckpoint(
            f"the adapter {adapter!r} does not fit the model: {in_words(report)}; take the adapter "
            "that was trained on this model"
        )
    require_plain(f"{file.name} of {adapter!r}", formats_of(stored), wanted)


def _weights_file(folder: Path) -> Path:
    """An adapter's weights, in the form that peft prefers."""
    preferred, other = (folder / name for name in ADAPTER[1])
    return preferred if preferred.is_file() else other
