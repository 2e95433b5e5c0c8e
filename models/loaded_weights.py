"""Weights and processors of transformers checkpoints, loaded so that nothing is made up.

`from_pretrained` fills every weight that a checkpoint lacks with random numbers and only prints a
report. Here the report is read: a checkpoint that lacks weights, holds some of other shapes, or is
mostly another model's, is refused before it answers anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError, safe_open

from models.checkpoints import UnusableCheckpoint, checkpoint_folder, loading_arguments
from models.spelling import some_of

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn

IGNORED_SHARE: Final = 0.1
"""Share of a checkpoint's tensors that a model may leave unused: buffers and heads that a version
dropped. Beyond it the checkpoint is another model's."""


def load_model(
    kind: Any, model: str, revision: str = "", *, without_data: bool = False, **options: Any
) -> Any:
    """`kind.from_pretrained(model)` with all of its weights, on the CPU and in evaluation mode.

    Args:
        kind: A model class or auto class of transformers.
        model: Directory or hub id.
        revision: Hub revision; ignored for a directory.
        without_data: Compare names and shapes only; no weight is read.
        options: Further arguments of `from_pretrained`, such as `dtype`.

    Raises:
        UnusableCheckpoint: Weights are missing, of another shape, not finite or another model's;
            the message names some.
    """
    place: dict[str, Any] = {"device_map": "meta"} if without_data else {}
    try:
        loaded, report = kind.from_pretrained(
            model,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **place,
            **loading_arguments(model, revision or None),
            **options,
        )
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise UnusableCheckpoint(f"{model!r} cannot be loaded: {first_line(error)}") from error
    _require_whole(model, type(loaded).__name__, report, len(loaded.state_dict()))
    if not without_data:
        require_finite(model, loaded)
    return loaded.eval()


def load_processor(kind: Any, model: str, revision: str = "") -> Any:
    """`kind.from_pretrained(model)` of a tokenizer or processor class.

    Raises:
        UnusableCheckpoint: A file is missing or cannot be read.
    """
    try:
        return kind.from_pretrained(model, **loading_arguments(model, revision or None))
    except Exception as error:  # the Rust tokenizer raises bare exceptions
        raise UnusableCheckpoint(
            f"tokenizer or processor of {model!r} cannot be loaded: {first_line(error)}; copy the "
            "files that are published with the weights into its folder"
        ) from error


def load_adapter(model: nn.Module, adapter: str) -> PeftModel:
    """A peft adapter on a model, with exactly the weights that it needs.

    Raises:
        UnusableCheckpoint: The adapter's weights are not those of its configuration on this model.
    """
    from peft import PeftModel, get_peft_model_state_dict

    try:
        tuned = PeftModel.from_pretrained(model, adapter)
        # Embeddings belong to an adapter only if it brings some.
        wanted = get_peft_model_state_dict(tuned, save_embedding_layers=False)
        found = _adapter_shapes(checkpoint_folder(adapter))
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise UnusableCheckpoint(
            f"the adapter {adapter!r} does not fit the model: {first_line(error)}"
        ) from error
    if found is not None:
        needed = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
        report = {
            "missing_keys": needed.keys() - found.keys(),
            "unexpected_keys": {n for n in found.keys() - needed.keys() if "lora_" in n},
            "mismatched_keys": {n for n in needed.keys() & found.keys() if needed[n] != found[n]},
        }
        if any(report.values()):
            raise UnusableCheckpoint(
                f"the adapter {adapter!r} does not fit the model: "
                f"{_in_words(report)}; take the adapter that was trained on this model"
            )
    require_finite(adapter, tuned)
    return tuned


def _adapter_shapes(folder: Path) -> dict[str, tuple[int, ...]] | None:
    """Name -> shape of an adapter's weights; None for the older form, which peft checks itself."""
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return None
    with safe_open(file, framework="pt") as weights:
        return {name: tuple(weights.get_slice(name).get_shape()) for name in list(weights.keys())}


def _require_whole(
    model: str, kind: str, report: Mapping[str, Collection[Any]], weights: int
) -> None:
    unused = report["unexpected_keys"]
    few = len(unused) <= IGNORED_SHARE * weights
    if report["missing_keys"] or report["mismatched_keys"] or not few:
        raise UnusableCheckpoint(
            f"{model!r} is not a whole {kind}: {_in_words(report)}; its answers would be those of "
            "random weights. Take the published checkpoint again, or the engine that it belongs to"
        )


_WORDS: Final = {
    "missing_keys": "it lacks",
    "mismatched_keys": "of another shape are",
    "unexpected_keys": "the model has no place for",
}


def _in_words(report: Mapping[str, Collection[Any]]) -> str:
    parts = []
    for name, said in _WORDS.items():
        # A mismatched key comes with its two shapes in some versions.
        found = sorted(key if isinstance(key, str) else str(key[0]) for key in report[name])
        if found:
            parts.append(f"{said} {len(found)} of the weights ({some_of(found)})")
    return "; ".join(parts)


def require_finite(model: str, loaded: nn.Module) -> None:
    """Refuse weights that are not finite numbers.

    Raises:
        UnusableCheckpoint: The message names some.
    """
    broken = [
        name
        for name, weights in loaded.named_parameters()
        if not bool(torch.isfinite(weights.detach()).all())
    ]
    if broken:
        raise UnusableCheckpoint(
            f"{model!r} holds weights that are not finite numbers ({some_of(broken)}); take the "
            "published checkpoint again"
        )


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    said = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {said}"
