"""Word-level tokenizers whose tokens may be whole phrases, in the library's own format.

"at the top left" and "on a white background" are one token each: a caption of three things has
about twenty tokens.
"""

import re
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNKNOWN = SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")


def longest_first(texts: Iterable[str], ending: str = "") -> str:
    """A pattern of alternatives in which no text hides a longer one that it begins.

    Args:
        texts: The alternatives, taken literally.
        ending: Pattern that must follow a text that begins with a blank.
    """
    ordered = sorted(texts, key=len, reverse=True)
    return "|".join(re.escape(text) + (ending if text[0] == " " else "") for text in ordered)


def word_tokenizer(
    vocabulary: Sequence[str],
    *,
    normalizer: normalizers.Normalizer,
    split: pre_tokenizers.PreTokenizer,
    decoder: decoders.Decoder,
    opened: bool,
    longest: int,
) -> PreTrainedTokenizerFast:
    """A tokenizer that pads on the left.

    Args:
        vocabulary: Every token in the order of its id, SPECIALS among them.
        normalizer: Prepares a text.
        split: Cuts a prepared text into tokens.
        decoder: Joins tokens to a text.
        opened: Whether `<s>` is put before a text.
        longest: Most tokens that the model takes.
    """
    ids = {token: i for i, token in enumerate(vocabulary)}
    backend = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    backend.normalizer, backend.pre_tokenizer, backend.decoder = normalizer, split, decoder
    if opened:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, ids[BOS])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=longest,
    )
