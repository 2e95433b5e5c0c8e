"""The text generator's tokenizer: words, and single tokens for fixed phrases."""

import re
from collections.abc import Iterable, Sequence

from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from embedded_world.recipes.text_prompts import DIFFERENCE_RULES, DIFFERENCE_TASK, LABELS
from embedded_world.recipes.word_tokenizers import SPECIALS, longest_first, word_tokenizer
from embedded_world.scenes import BACKGROUNDS, SIZES
from embedded_world.words import SYNONYMS, phrases

SPARE_WORDS = (
    *("now", "was", "instead", "same", "different", "no", "not"),
    *("only", "both", "but", "than", "more", "less", "it's"),
)
"""Words that no training text uses yet: room for other kinds of text (adapters)."""

CHAT_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""One user message becomes the raw prompt, so a chat server and raw text give the same tokens."""


def each_with_synonyms(words: Iterable[str]) -> list[str]:
    """The words, each followed by its own synonyms: the order of ids in shipped weights."""
    return [form for word in words for form in (word, *SYNONYMS.get(word, ()))]


def vocabulary(more: Sequence[str] = ()) -> list[str]:
    """Every token in the order of its id: specials, labels, phrases, words, and more words."""
    sized = [f"a {size}" for size in each_with_synonyms(SIZES)]
    tokens = [*SPECIALS, *(label.lower() for label in LABELS), *sized, *phrases()]
    tokens += [*each_with_synonyms(BACKGROUNDS), *SPARE_WORDS]
    # What older weights do not know comes after the others: ids stay.
    tokens += [DIFFERENCE_TASK.lower(), DIFFERENCE_RULES.lower(), *more]
    return list(dict.fromkeys(token for token in tokens if token != "."))


def build_text_tokenizer(more: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """The word-level tokenizer; decoding gives the grammar's exact spelling.

    Text is lower-cased first. Line breaks and punctuation other than commas are skipped, unknown
    words become `<unk>`, and `<s>` is put in front unless special tokens are switched off.

    Args:
        more: Further words; each that is new gets an id after the others.
    """
    tokens = vocabulary(more)
    fixed = [t for t in tokens if t not in SPECIALS and not re.fullmatch("[a-z]+", t)]
    blanks = normalizers.Replace(Regex(r"\s+"), " ")
    words = Regex(rf"(?:{longest_first(fixed)})(?![a-z])|[a-z0-9]+")
    tokenizer = word_tokenizer(
        tokens,
        normalizer=normalizers.Sequence([blanks, normalizers.Lowercase()]),
        split=pre_tokenizers.Split(words, behavior="removed", invert=True),
        # Joins tokens by blanks, except that commas stick to the word before them.
        decoder=decoders.WordPiece(prefix="##", cleanup=True),
        opened=True,
        longest=256,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
