"""Tokens and prompts of the embedded text generator.

The tokenizer is word-level with multi-word tokens ("at the top left" is one token), so a caption
of three things is about twenty tokens. Prompts are plain text with the field's own labels.
"""

import re
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from embedded_world import grammar
from embedded_world.scenes import BACKGROUNDS, SIZES

IMAGE_CONTENT = "Image Content:"
INSTRUCTION = "Instruction:"
EDITED = "Edited Description:"
ADDED = "Objects most likely added:"
CAPTION_A, CAPTION_B, DIFFERENCE = "caption A:", "caption B:", "Difference:"
LABELS = (IMAGE_CONTENT, INSTRUCTION, EDITED, ADDED, CAPTION_A, CAPTION_B, DIFFERENCE)

PAD, BOS, EOS, UNK = SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
SPARE_WORDS = (
    *("now", "was", "instead", "same", "different", "no", "not"),
    *("only", "both", "but", "than", "more", "less", "it's"),
)
"""Words that no training text uses yet: room for other styles of text (adapters)."""

DIFFERENCE_TASK = (
    "You have two captions for two images, image A and image B, you are supposed to write a "
    "reformulation text describing changing from image A to image B"
)
DIFFERENCE_RULES = (
    "answer should be concise and within 12 words, only contain normal words, "
    "do not use special characters"
)
"""The prose of InstructCIR's reformulation prompt: one token each, like every fixed phrase."""

CHAT_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""One user message becomes the raw prompt, so a chat server and raw text give the same tokens."""


def edit_prompt(caption: str, instruction: str) -> str:
    """Prompt whose answer is the caption after the instruction."""
    return f"{IMAGE_CONTENT} {caption}\n{INSTRUCTION} {instruction}\n{EDITED}"


def added_prompt(caption: str, instruction: str) -> str:
    """Prompt whose answer is the things that the instruction brings in, or "none"."""
    return f"{IMAGE_CONTENT} {caption}\n{INSTRUCTION} {instruction}\n{ADDED}"


def copy_prompt(caption: str) -> str:
    """Prompt without an instruction: the answer is the caption in canonical words and order."""
    return f"{IMAGE_CONTENT} {caption}\n{EDITED}"


def difference_prompt(before: str, after: str, *, prose: bool = True) -> str:
    """InstructCIR's reformulation prompt; the answer is what changes from one caption to the other.

    Args:
        before: Caption of image A.
        after: Caption of image B.
        prose: False leaves nothing but the captions and their labels.
    """
    captions = f"{CAPTION_A} {before} {CAPTION_B} {after}"
    if not prose:
        return f"{captions} {DIFFERENCE}"
    return f"{DIFFERENCE_TASK}. {captions} {DIFFERENCE_RULES}. {DIFFERENCE}"


def with_synonyms(words: Iterable[str]) -> list[str]:
    """The words, each followed by its synonyms."""
    return [form for word in words for form in (word, *grammar.SYNONYMS.get(word, ()))]


def vocabulary() -> list[str]:
    """Every token in the order of its id: specials, labels, phrases, words."""
    sized = [f"a {size}" for size in with_synonyms(SIZES)]
    tokens = [*SPECIALS, *(label.lower() for label in LABELS), *sized, *grammar.phrases()]
    tokens += [*with_synonyms(BACKGROUNDS), *SPARE_WORDS]
    tokens += [DIFFERENCE_TASK.lower(), DIFFERENCE_RULES.lower()]  # after the others: ids stay
    return list(dict.fromkeys(token for token in tokens if token != "."))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The word-level tokenizer; decoding gives the grammar's exact spelling.

    Text is lower-cased first. Line breaks and punctuation other than commas are skipped, unknown
    words become `<unk>`, and `<s>` is put in front unless special tokens are switched off.
    """
    tokens = vocabulary()
    ids = {token: i for i, token in enumerate(tokens)}
    fixed = [t for t in tokens if t not in SPECIALS and not re.fullmatch("[a-z]+", t)]
    longest_first = "|".join(re.escape(t) for t in sorted(fixed, key=len, reverse=True))
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    blanks = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([blanks, normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(rf"(?:{longest_first})(?![a-z])|[a-z0-9]+"), behavior="removed", invert=True
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, ids[BOS])]
    )
    # Joins tokens by blanks, except that commas stick to the word before them.
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
