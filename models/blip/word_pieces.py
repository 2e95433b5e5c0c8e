"""BERT's word pieces as BLIP reads them, with its two extra tokens.

[CLS] pieces [SEP]      a text that is read alone
[ENC] pieces [SEP]      a text that is read over an image
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from transformers import BertTokenizer

from models.blip.vocabulary_file import VOCABULARY_FILE, vocabulary_beside
from models.checkpoints import UnusableCheckpoint

_NEEDED: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


class WordPieces:
    """Turns texts into padded ids.

    A special token that is written out in a text is read as ordinary pieces.

    Attributes:
        vocabulary: The file's content, from which the same tokenizer can be made again.
        rows: Rows that a table of words needs.
        pad: Id of padding.
        classify: Id of [CLS].
        decode: Id of [DEC].
        encode: Id of [ENC].
    """

    def __init__(self, vocabulary: bytes, where: str | Path = VOCABULARY_FILE) -> None:
        """Read a vocabulary.

        Args:
            vocabulary: Content of a `vocab.txt`.
            where: The file, for messages.

        Raises:
            UnusableCheckpoint: It is not a vocabulary of BERT.
        """
        try:
            pieces = vocabulary.decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise UnusableCheckpoint(f"{where} is not a text file: {error}") from error
        lacking = [name for name in _NEEDED if name not in pieces]
        if lacking:
            raise UnusableCheckpoint(
                f"{where} is not a vocabulary of BERT: it lacks {', '.join(lacking)}; take "
                f"{VOCABULARY_FILE} of bert-base-uncased"
            )
        self.vocabulary = vocabulary
        ids = {piece: number for number, piece in enumerate(pieces)}
        self._pieces = BertTokenizer(vocab=ids, split_special_tokens=True)
        self.pad, self.classify, self._separate = ids["[PAD]"], ids["[CLS]"], ids["[SEP]"]
        self.decode, self.encode = len(pieces), len(pieces) + 1
        self.rows = len(pieces) + 2

    @classmethod
    def beside(cls, weights: Path) -> WordPieces:
        """The tokenizer of the vocabulary that lies next to a file of weights.

        Raises:
            UnusableCheckpoint: None lies there, or it is none.
        """
        path = vocabulary_beside(weights)
        return cls(path.read_bytes(), path)

    def require_rows(self, rows: int, where: str | Path) -> None:
        """Refuse weights whose table of words belongs to another vocabulary.

        Raises:
            UnusableCheckpoint: It has more or fewer rows than there are words.
        """
        if rows != self.rows:
            raise UnusableCheckpoint(
                f"{where} has {rows} words, {VOCABULARY_FILE} next to it makes {self.rows} with "
                f"[DEC] and [ENC]; take {VOCABULARY_FILE} of bert-base-uncased"
            )

    def __call__(
        self, texts: Sequence[str], *, over_image: bool, longest: int, marked: bool = False
    ) -> torch.Tensor:
        """Token ids (B, L) int64, padded behind to the longest text.

        Args:
            texts: Their pieces are cut so that [SEP] remains.
            over_image: Whether [ENC] stands first instead of [CLS].
            longest: Tokens of the longest row, both ends included.
            marked: Whether [DEC] stands second, as the mark of another kind of query.
        """
        first = [self.encode if over_image else self.classify] + [self.decode] * marked
        bodies = self._pieces(list(texts), add_special_tokens=False).input_ids if texts else []
        room = longest - len(first) - 1
        return padded([[*first, *body[:room], self._separate] for body in bodies], self.pad)


def padded(rows: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
    """Rows of ids as (B, L) int64, padded behind."""
    length = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows]).view(-1, length)
