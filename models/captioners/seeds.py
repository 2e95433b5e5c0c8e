"""Seeds of random streams, one for each thing that is drawn."""

from __future__ import annotations

import hashlib


def stream_seed(*parts: str | int) -> int:
    """The seed of one random stream, a signed 64-bit number that depends on every part.

    Parts are joined with their type and length, so ("1", 2) and (1, "2") or ("ab", "c") and
    ("a", "bc") are different streams.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        raw = str(part).encode()
        digest.update(f"{type(part).__name__}:{len(raw)}:".encode() + raw)
    return int.from_bytes(digest.digest(), "little", signed=True)
