"""The text generator's prompts: plain text with the field's own labels."""

IMAGE_CONTENT = "Image Content:"
INSTRUCTION = "Instruction:"
EDITED = "Edited Description:"
ADDED = "Objects most likely added:"
CAPTION_A, CAPTION_B, DIFFERENCE = "caption A:", "caption B:", "Difference:"
LABELS = (IMAGE_CONTENT, INSTRUCTION, EDITED, ADDED, CAPTION_A, CAPTION_B, DIFFERENCE)

DIFFERENCE_TASK = (
    "You have two captions for two images, image A and image B, you are supposed to write a "
    "reformulation text describing changing from image A to image B"
)
DIFFERENCE_RULES = (
    "answer should be concise and within 12 words, only contain normal words, "
    "do not use special characters"
)
"""The prose of InstructCIR's reformulation prompt."""


def edit_prompt(caption: str, instruction: str) -> str:
    """Prompt whose answer is the caption after the instruction."""
    return f"{IMAGE_CONTENT} {caption}\n{INSTRUCTION} {instruction}\n{EDITED}"


def added_prompt(caption: str, instruction: str) -> str:
    """Prompt whose answer lists the things that the instruction brings in, or says "none"."""
    return f"{IMAGE_CONTENT} {caption}\n{INSTRUCTION} {instruction}\n{ADDED}"


def copy_prompt(caption: str) -> str:
    """Prompt without an instruction: the answer is the caption in canonical words and order."""
    return f"{IMAGE_CONTENT} {caption}\n{EDITED}"


def difference_prompt(before: str, after: str, *, prose: bool = True) -> str:
    """InstructCIR's reformulation prompt; the answer tells the change between the captions.

    Args:
        before: Caption of image A.
        after: Caption of image B.
        prose: False leaves nothing but the captions and their labels.
    """
    captions = f"{CAPTION_A} {before} {CAPTION_B} {after}"
    if not prose:
        return f"{captions} {DIFFERENCE}"
    return f"{DIFFERENCE_TASK}. {captions} {DIFFERENCE_RULES}. {DIFFERENCE}"
