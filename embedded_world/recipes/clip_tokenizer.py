"""Merges that make every word of the language one token of open_clip's own tokenizer."""

import gzip
import itertools
import re
from collections.abc import Iterable
from pathlib import Path

from embedded_world.words import phrases

BPE_FILE = "bpe.txt.gz"
HEADER = "#version: merges of the embedded world's words"


def words() -> list[str]:
    """Every word of the language, in a fixed order."""
    return sorted({word for phrase in phrases() for word in re.findall("[a-z]+", phrase)})


def _pieces(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encode one word as CLIP's tokenizer does: the lowest-ranked pair merges first."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while True:
        known = [pair for pair in itertools.pairwise(pieces) if pair in ranks]
        if not known:
            return pieces
        best = min(known, key=lambda pair: ranks[pair])
        merged: list[str] = []
        for piece in pieces:
            # A piece that was itself just merged must not be taken for the first of a pair.
            if merged and (merged[-1], piece) == best:
                merged[-1] += piece
            else:
                merged.append(piece)
        pieces = merged


def merges(vocabulary: Iterable[str]) -> list[tuple[str, str]]:
    """Merges, in rank order, under which each of the words is one token.

    A word is given new merges only where those before leave it in pieces; later merges rank lower
    and so never change how an earlier word is read.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in vocabulary:
        while len(pieces := _pieces(word, ranks)) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
    return list(ranks)


def write_merges(folder: Path) -> Path:
    """Write `bpe.txt.gz` for open_clip's SimpleTokenizer."""
    lines = [HEADER, *(" ".join(pair) for pair in merges(words()))]
    path = folder / BPE_FILE
    # No line end after the last merge (the reader would make an empty merge of it), and no time
    # stamp, so that the file is the same every time.
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    return path
