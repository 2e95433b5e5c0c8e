"""CLIP's vocabulary, read once a process.

open_clip reads its 49,152 byte pairs again for each tokenizer, which takes 0.1 s, and tests make
many hundreds.
"""

from __future__ import annotations

import functools
import sys
from typing import Any


def share_vocabulary() -> None:
    """From here on tokenizers of open_clip's own byte pairs are copies of the first of their kind.

    Does nothing while open_clip is not imported.
    """
    module = sys.modules.get("open_clip.tokenizer")
    kind = getattr(module, "SimpleTokenizer", None)
    if kind is None or hasattr(kind.__init__, "__wrapped__"):
        return
    read = kind.__init__
    made: dict[str, dict[str, Any]] = {}

    @functools.wraps(read)
    def shared(self: Any, *given: Any, **named: Any) -> None:
        if given or "bpe_path" in named:  # another vocabulary
            read(self, *given, **named)
            return
        key = repr(sorted(named.items()))
        if key not in made:
            read(self, **named)
            made[key] = dict(vars(self))
        vars(self).update({name: _own(value) for name, value in made[key].items()})

    kind.__init__ = shared


def _own(value: Any) -> Any:
    """What one tokenizer may change without the others."""
    return value.copy() if isinstance(value, dict | list) else value
