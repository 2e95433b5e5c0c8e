"""Weights and processors of transformers checkpoints, loaded so that nothing is made up.

`from_pretrained` fills every weight that a checkpoint lacks with random numbers and only prints a
report. Here the report is read: a checkpoint that lacks weights, holds some of other shapes, more
layers than its configuration, or mostly another model's, is refused before it answers anything.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from models.checkpoints import (
    UnusableCheckpoint,
    checkpoint_folder,
    folder_here,
    loading_arguments,
)
from models.spelling import agreed, some_of
from models.weight_formats import require_plain_files

if TYPE_CHECKING:
    from torch import nn

UNREADABLE: Final = (
    *(OSError, EOFError, ValueError, LookupError, RuntimeError, TypeError, AttributeError),
    *(AssertionError, StopIteration, ImportError, ArithmeticError, StrictDataclassError),
    *(struct.error, pickle.UnpicklingError, SafetensorError),
)
"""Errors of libraries that read a damaged file; torch has many for a damaged `.bin` file."""

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
        options: Further arguments of `from_pretrained`, such as `dtype` or `subfolder`.

    Raises:
        UnusableCheckpoint: Weights are missing, of another shape or number format, not finite or
            another model's; the message names some.
    """
    place: dict[str, Any] = {"device_map": "meta"} if without_data else {}
    folder_here(model, revision or None)  # the hub's client would ask again and again
    try:
        loaded, report = kind.from_pretrained(
            model,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **place,
            **loading_arguments(model, revision or None),
            **options,
        )
    except UNREADABLE as error:
        raise UnusableCheckpoint(f"{model!r} cannot be loaded: {first_line(error)}") from error
    held = loaded.state_dict()
    _require_whole(model, type(loaded).__name__, report, held.keys())
    unused = frozenset(report["unexpected_keys"])
    _require_plain(model, revision, str(options.get("subfolder", "")), held, unused)
    if not without_data:
        require_finite(model, loaded)
        require_written(model, loaded)
    return loaded.eval()


def _require_plain(
    model: str,
    revision: str,
    part: str,
    held: Mapping[str, torch.Tensor],
    unused: frozenset[str],
) -> None:
    try:
        folder = checkpoint_folder(model, revision or None) / part
        require_plain_files(model, folder, held, unused)
    except UnusableCheckpoint:
        raise
    except UNREADABLE as error:
        raise UnusableCheckpoint(f"{model!r} cannot be loaded: {first_line(error)}") from error


def check_model(kind: Any, reader: Any, model: str, revision: str) -> Any:
    """Compare the weights' names and shapes, and the words of the tokenizer, with the model's.

    Args:
        kind: A model class or auto class of transformers.
        reader: The class of its tokenizer or processor.
        model: Directory or hub id.
        revision: Hub revision; ignored for a directory.

    Returns:
        The model without data, on torch's `meta` device.

    Raises:
        UnusableCheckpoint: Something is missing or does not fit.
    """
    found = load_model(kind, model, revision, without_data=True)
    load_processor(reader, model, revision, found)
    return found


def load_processor(kind: Any, model: str, revision: str, loaded: Any = None) -> Any:
    """`kind.from_pretrained(model)` of a tokenizer or processor class.

    Args:
        kind: A class or auto class of transformers.
        model: Directory or hub id.
        revision: Hub revision; ignored for a directory.
        loaded: The checkpoint's model, which must know every word of the tokenizer; None where
            the caller compares them itself.

    Raises:
        UnusableCheckpoint: A file is missing, cannot be read, or is another model's.
    """
    try:
        found = kind.from_pretrained(model, **loading_arguments(model, revision or None))
    except Exception as error:  # the Rust tokenizer raises bare exceptions
        raise UnusableCheckpoint(
            f"tokenizer or processor of {model!r} cannot be loaded: {first_line(error)}; copy the "
            "files that are published with the weights into its folder"
        ) from error
    if loaded is not None:
        tokenizer = getattr(found, "tokenizer", found)
        require_vocabulary(model, tokenizer, loaded.get_input_embeddings().num_embeddings)
    return found


def require_vocabulary(model: str, tokenizer: Any, rows: int) -> None:
    """Refuse a tokenizer of words that the model's table of embeddings does not have.

    Tokens that were added to a tokenizer (a padding token) may lack a row: no text holds them.

    Args:
        model: Name of the checkpoint.
        tokenizer: A tokenizer of transformers.
        rows: Rows of the table.

    Raises:
        UnusableCheckpoint: The message names some of the words.
    """
    added = tokenizer.get_added_vocab()
    beyond = sorted(w for w, i in tokenizer.get_vocab().items() if i >= rows and w not in added)
    if beyond:
        raise UnusableCheckpoint(
            f"the tokenizer of {model!r} knows {len(beyond)} {agreed(len(beyond), 'word')} "
            f"({some_of(beyond)}) beyond the {rows} that its weights have; take the tokenizer "
            "that is published with the weights"
        )


def _require_whole(
    model: str, kind: str, report: Mapping[str, Collection[Any]], weights: Collection[str]
) -> None:
    unused, patterns = report["unexpected_keys"], set(map(_without_numbers, weights))
    further = any(_without_numbers(name) in patterns for name in unused)  # layers of a deeper model
    if (
        report["missing_keys"]
        or report["mismatched_keys"]
        or further
        or len(unused) > IGNORED_SHARE * len(weights)
    ):
        raise UnusableCheckpoint(
            f"{model!r} is not a whole {kind}: {in_words(report)}; its answers would be those of "
            "random weights. Take the published checkpoint again, or the engine that it belongs to"
        )


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "*", name)


_WORDS: Final = {
    "missing_keys": "it lacks",
    "mismatched_keys": "of another shape are",
    "unexpected_keys": "the model has no place for",
}


def in_words(report: Mapping[str, Collection[Any]]) -> str:
    """What a loading report says, with some of the names."""
    parts = []
    for name, said in _WORDS.items():
        # A mismatched key comes with its two shapes in some versions.
        found = sorted(key if isinstance(key, str) else str(key[0]) for key in report[name])
        if found:
            parts.append(f"{said} {len(found)} of the weights ({some_of(found)})")
    return "; ".join(parts)


def require_finite(model: str, loaded: nn.Module) -> None:
    """Refuse weights and running statistics that are not finite numbers.

    Raises:
        UnusableCheckpoint: The message names some.
    """
    require_finite_values(model, loaded.state_dict())


def require_finite_values(model: str, values: Mapping[str, torch.Tensor]) -> None:
    """As `require_finite`, of named tensors.

    Raises:
        UnusableCheckpoint: The message names some.
    """
    broken = [n for n, found in values.items() if not bool(torch.isfinite(_wide(found)).all())]
    if broken:
        raise UnusableCheckpoint(
            f"{model!r} holds weights that are not finite numbers ({some_of(broken)}); take the "
            "published checkpoint again"
        )


def _wide(found: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or in fp32 where torch has no tests of its 8-bit floats."""
    return found.float() if found.is_floating_point() and found.itemsize == 1 else found


def require_written(model: str, loaded: nn.Module) -> None:
    """Refuse a model of which more matrices than a few are all zero.

    A download that was cut may leave a file of the right length that was never written to its end.

    Raises:
        UnusableCheckpoint: The message names some.
    """
    matrices = [(name, found) for name, found in loaded.named_parameters() if found.ndim > 1]
    empty = [name for name, found in matrices if not bool(found.detach().any())]
    if len(empty) > IGNORED_SHARE * len(matrices):
        raise UnusableCheckpoint(
            f"{len(empty)} of the {len(matrices)} "
            f"{agreed(len(matrices), 'matrix', 'matrices')} of {model!r} "
            f"{agreed(len(empty), 'is', 'are')} all zero ({some_of(empty)}): its file was not "
            "written to the end; take the published checkpoint again"
        )


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    said = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {said}"
