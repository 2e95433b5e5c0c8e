"""The vocabulary that lies next to weights with a text tower of BERT's kind."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from models.checkpoints import UnusableCheckpoint
from models.published_files import require_weights

VOCABULARY_FILE: Final = "vocab.txt"
"""The word pieces of `bert-base-uncased`, one a line; [DEC] and [ENC] are not among them."""


def vocabulary_beside(weights: Path) -> Path:
    """The vocabulary next to a file of weights.

    Raises:
        UnusableCheckpoint: None lies there.
    """
    path = weights.parent / VOCABULARY_FILE
    if not path.is_file():
        raise UnusableCheckpoint(
            f"{weights} brings no tokenizer; put {VOCABULARY_FILE} of bert-base-uncased next "
            f"to it, as {path}"
        )
    return path


def require_worded_weights(path: Path) -> None:
    """Refuse what is not a file of weights with a vocabulary next to it.

    Raises:
        UnusableCheckpoint: The file is missing, is not one of weights, or lacks the vocabulary.
    """
    require_weights(path)
    vocabulary_beside(path)
