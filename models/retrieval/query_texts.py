"""The texts that queries are encoded from, and the pseudo token's place in them.

Template of all pseudo-word methods: "a photo of $ that {modification}"; CVSI adds the objects
that the modification most likely brings in (its fine-grained text, before equation 2).
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from models.generators.non_answers import adds_nothing
from models.protocols import SplicedText

NoObjects: TypeAlias = Literal["drop", "keep"]
NO_OBJECTS: Final[tuple[str, ...]] = get_args(NoObjects)


def pseudo_text(modification: str) -> SplicedText:
    """'a photo of $ that {modification}' (Pic2Word's family, LinCIR)."""
    return SplicedText("a photo of", f"that {modification.strip()}")


def pic2word_text(modification: str) -> SplicedText:
    """'a photo of $ , {modification}': Pic2Word's own template."""
    return SplicedText("a photo of", f", {modification.strip()}")


def captioning_text(caption: str, modification: str) -> str:
    """'a photo of {caption} that {modification}': the Captioning baseline."""
    return f"a photo of {caption.strip()} that {modification.strip()}"


def fine_grained_text(
    modification: str, objects: str, *, final_stop: bool = True, no_objects: NoObjects = "drop"
) -> SplicedText:
    """CVSI's fine-grained text F_G around the pseudo token.

    Args:
        modification: The modification text T.
        objects: The objects most likely added, as the text generator answered.
        final_stop: Whether the second sentence ends with a full stop (difference D6).
        no_objects: What to do when nothing is added: `drop` the second sentence, or `keep` it
            with the answer as it is, its full stop included (difference D15).
    """
    if no_objects not in NO_OBJECTS:
        raise ValueError(f"no_objects is {no_objects!r}; one of {', '.join(NO_OBJECTS)}")
    first = pseudo_text(modification)
    if no_objects == "drop" and adds_nothing(objects):
        return first
    stop = "." if final_stop else ""
    listed = objects.strip() if no_objects == "keep" else objects.strip().rstrip(". ")
    second = f"And the photo should have {listed}{stop}"
    return SplicedText(first.before, f"{first.after}. {second}")
