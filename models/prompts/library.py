"""Prompts by name or by a user's own file; the file is the prompt, its hash is its identity.

A prompt holds named placeholders such as `{caption}`. They are filled in one pass and by name
only, so that braces or placeholder names inside a caption or an instruction stay what they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.protocols import Fingerprint
from models.spelling import unknown

EDIT_PLACEHOLDERS: Final = ("caption", "text")
"""Placeholders of prompts for edited captions and for added objects."""

_FOLDER: Final = Path(__file__).parent
_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt template.

    Attributes:
        name: Its name here, or the file name of a user's own prompt; for people only.
        template: The text, without the file's last line end.
        placeholders: The names in it that `render` fills.
    """

    name: str
    template: str
    placeholders: tuple[str, ...]

    @property
    def fingerprint(self) -> Fingerprint:
        """The hash of the text: the same words under another name are the same prompt."""
        return {"prompt_sha256": hashlib.sha256(self.template.encode()).hexdigest()}

    def render(self, **values: str) -> str:
        """The prompt with every placeholder filled.

        Raises:
            ValueError: When the values are not exactly those of the placeholders.
        """
        if values.keys() != set(self.placeholders):
            raise ValueError(
                f"prompt {self.name!r} takes {', '.join(self.placeholders)}, "
                f"not {', '.join(sorted(values)) or 'nothing'}"
            )
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.template)


def prompt_names() -> list[str]:
    """Names of the prompts that ship with cirflow."""
    return sorted(path.stem for path in _FOLDER.glob("*.md"))


def load_prompt(
    name_or_path: str | Path, placeholders: Collection[str] = EDIT_PLACEHOLDERS
) -> Prompt:
    """A prompt that ships with cirflow, or a user's own.

    Args:
        name_or_path: A name of `prompt_names()`, or the path of a text file; something that
            ends in `.md` or `.txt`, or holds a path separator, is a path.
        placeholders: The placeholders the step fills; each must occur, and no other.

    Raises:
        ValueError: When there is no such prompt or file, or its placeholders do not fit.
    """
    path = _locate(str(name_or_path))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise ValueError(f"the prompt file {path} cannot be read: {failure}") from failure
    template = text.replace("\r\n", "\n").removesuffix("\n")
    found = set(_PLACEHOLDER.findall(template))
    wanted = {f"{{{name}}}" for name in placeholders}
    if unknown := sorted(found - set(placeholders)):
        raise ValueError(
            f"prompt {path.name} has unknown placeholders {_braced(unknown)}; "
            f"it may use {', '.join(sorted(wanted))}"
        )
    if missing := sorted(set(placeholders) - found):
        raise ValueError(f"prompt {path.name} lacks the placeholders {_braced(missing)}")
    return Prompt(path.stem, template, tuple(sorted(found)))


def _locate(name_or_path: str) -> Path:
    if name_or_path in prompt_names():
        return _FOLDER / f"{name_or_path}.md"
    path = Path(name_or_path)
    if path.suffix in (".md", ".txt") or len(path.parts) > 1:
        return path
    raise ValueError(
        f"{unknown('prompt', name_or_path, prompt_names())}, or the path of your own .md file"
    )


def _braced(names: Collection[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
