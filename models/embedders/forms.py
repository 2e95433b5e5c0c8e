"""How a query or a target is put to a chat model that embeds: one form for engines and servers.

A form is configuration. The presets are what the models' own programs do:

- `qwen3-vl-embedding` (arXiv:2601.04720): the instruction is the system's message and ends in a
  punctuation mark, pictures stand before the text, the assistant's header closes the prompt.
- `gme` (arXiv:2412.16855): likewise without that mark, and `<|endoftext|>` behind the header.
- `vlm2vec` (arXiv:2410.05160): no chat; pictures, instruction and text, each line ended.
- `bge-vl-mllm` (MegaPairs, arXiv:2412.14475): other prompts of queries and targets, pictures of
  512 x 512 behind the text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from models.protocols import Fingerprint
from models.settings import Settings

Preset: TypeAlias = Literal["qwen3-vl-embedding", "gme", "vlm2vec", "bge-vl-mllm"]
Part: TypeAlias = Literal["instruction", "pictures", "text"]
Padding: TypeAlias = Literal["right", "left"]

CIRR_INSTRUCTION: Final = (
    "Given an image, find a similar everyday image with the described changes:"
)
"""MMEB's instruction of CIRR."""


class Mark(Enum):
    """The place of a picture in a prompt."""

    PICTURE = "picture"


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form in full.

    Attributes:
        chat: The checkpoint's chat template wraps the message; otherwise the message is the prompt.
        system: The instruction is the system's message and not part of the user's.
        header: The chat ends with the assistant's header.
        punctuated: An instruction without a punctuation mark at its end gets a full stop.
        order: Of the user's message.
        query: How a query's instruction is written into the user's message.
        target: The same for targets.
        picture: How a picture is written; {picture} is its place.
        text: How a text is written.
        empty: The message of a query that has neither pictures nor a text.
        finish: Behind the user's message.
        end: Behind the whole prompt.
        padding: Side on which prompts of a batch are filled up.
        side: Pixels of both sides to which pictures are brought first; 0: they are left.
        min_pixels: Least pixels of a picture; 0: the checkpoint's own.
        max_pixels: Most pixels of a picture; 0: the checkpoint's own.
        query_instruction: The instruction of queries where none is set.
        target_instruction: That of targets.
    """

    chat: bool = True
    system: bool = True
    header: bool = True
    punctuated: bool = False
    order: Sequence[Part] = ("pictures", "text")
    query: str = "{instruction}"
    target: str = "{instruction}"
    picture: str = "{picture}"
    text: str = "{text}"
    empty: str = "NULL"
    finish: str = ""
    end: str = ""
    padding: Padding = "right"
    side: int = 0
    min_pixels: int = 0
    max_pixels: int = 0
    query_instruction: str = CIRR_INSTRUCTION
    target_instruction: str = ""

    @property
    def fingerprint(self) -> Fingerprint:
        """All but the instruction of queries, which is part of a query's identity."""
        values = asdict(self) | {"order": list(self.order)}
        del values["query_instruction"]
        return values

    def said(self, instruction: str) -> str:
        """An instruction as the model reads it."""
        shown = instruction.strip() if self.punctuated else instruction
        if self.punctuated and shown and not unicodedata.category(shown[-1]).startswith("P"):
            return f"{shown}."
        return shown

    def system_of(self, instruction: str) -> str:
        """The system's message; empty: none."""
        return self.said(instruction) if self.system else ""

    def user(
        self, pictures: int, text: str, instruction: str, *, target: bool
    ) -> Sequence[str | Mark]:
        """The user's message: words and the places of pictures.

        Args:
            pictures: How many there are.
            text: The modification text; empty: none.
            instruction: What is asked for.
            target: Whether it is a gallery's picture and not a query.
        """
        if not pictures and not text:
            text = self.empty
        told = (self.target if target else self.query).replace(
            "{instruction}", self.said(instruction)
        )
        before, _, after = self.picture.partition("{picture}")
        shown: dict[Part, list[str | Mark]] = {
            "instruction": [] if self.system else [told],
            "pictures": [before, Mark.PICTURE, after] * pictures,
            "text": [self.text.replace("{text}", text)] if text else [],
        }
        parts = [part for name in self.order for part in shown[name]]
        return joined([*parts, self.finish])


def joined(parts: Sequence[str | Mark]) -> list[str | Mark]:
    """Parts without empty words; words that follow each other are one."""
    made: list[str | Mark] = []
    for part in parts:
        if isinstance(part, str) and made and isinstance(last := made[-1], str):
            made[-1] = last + part
        elif part:
            made.append(part)
    return made


_VISION_TOKEN: Final = 28 * 28

PRESETS: Final[Mapping[Preset, Form]] = MappingProxyType(
    {
        "qwen3-vl-embedding": Form(
            punctuated=True,
            query_instruction=CIRR_INSTRUCTION.replace(":", "."),
            target_instruction="Represent the user's input.",
        ),
        "gme": Form(
            end="<|endoftext|>",
            min_pixels=256 * _VISION_TOKEN,
            max_pixels=1280 * _VISION_TOKEN,
            query_instruction=CIRR_INSTRUCTION.replace(":", "."),
            target_instruction="You are a helpful assistant.",
        ),
        "vlm2vec": Form(
            chat=False,
            system=False,
            header=False,
            order=("pictures", "instruction", "text"),
            picture="{picture}\n",
            text=" {text}",
            finish="\n",
            target_instruction="Represent the given image.",
        ),
        "bge-vl-mllm": Form(
            chat=False,
            system=False,
            header=False,
            order=("instruction", "text", "pictures"),
            query="[INST] \n <instruct> {instruction} <query> ",
            target="[INST] ",
            text=" {text} \n",
            picture=" {picture}",
            finish=" [/INST]",
            padding="left",
            side=512,
            query_instruction=(
                "Retrieve the target image that best meets the combined criteria by using both "
                "the provided image and the image retrieval instructions: "
            ),
        ),
    }
)


class FormSettings(Settings):
    """A preset, and what differs from it; a setting that is null is the preset's."""

    preset: Preset = "qwen3-vl-embedding"
    """The models' own programs that the form follows."""
    chat: bool | None = None
    """Whether the checkpoint's chat template wraps the message."""
    system: bool | None = None
    """Whether the instruction is the system's message."""
    header: bool | None = None
    """Whether the chat ends with the assistant's header."""
    punctuated: bool | None = None
    """Whether an instruction without a punctuation mark at its end gets a full stop."""
    order: tuple[Part, ...] | None = None
    """Order of the user's message."""
    query: str | None = None
    """How a query's {instruction} is written into the user's message."""
    target: str | None = None
    """The same for targets."""
    picture: str | None = None
    """How a {picture} is written."""
    text: str | None = None
    """How a {text} is written."""
    empty: str | None = None
    """The message of a query that has neither pictures nor a text."""
    finish: str | None = None
    """Behind the user's message."""
    end: str | None = None
    """Behind the whole prompt."""
    padding: Padding | None = None
    """Side on which prompts of a batch are filled up."""
    side: int | None = None
    """Pixels of both sides to which pictures are brought first; 0: they are left."""
    min_pixels: int | None = None
    """Least pixels of a picture; 0: the checkpoint's own."""
    max_pixels: int | None = None
    """Most pixels of a picture; 0: the checkpoint's own."""
    target_instruction: str | None = None
    """The instruction of targets."""

    @property
    def form(self) -> Form:
        """The form in full."""
        given = self.model_dump(exclude={"preset"}, exclude_none=True)
        return replace(PRESETS[self.preset], **given)
