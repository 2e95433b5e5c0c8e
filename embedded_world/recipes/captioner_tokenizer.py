"""The captioners' tokenizer: one token per phrase of the language, in the library's own format.

"at the top left", "a small" and "on a white background" are one token each, which makes a caption
of three things about twenty tokens long. A token carries the blank before it, so that decoding is
joining and gives back the exact spelling, commas included.
"""

import re

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

from embedded_world.grammar import PLAIN, phrases
from embedded_world.scenes import COLOURS, FILLS, SIZES

PAD, BOS, EOS, UNKNOWN, IMAGE = "<pad>", "<s>", "</s>", "<unk>", "<image>"
SPECIALS = (PAD, BOS, EOS, UNKNOWN, IMAGE)
PUNCTUATION = (",", ".")
LONGEST = 30
"""Most tokens of a caption; the longest in the language has 21."""


def pieces(prompt: str = "") -> list[str]:
    """Everything that is one token: punctuation bare, all else with the blank before it."""
    known = phrases()
    opening = [word for word in known if PLAIN.get(word, word) in (*SIZES, *FILLS, *COLOURS)]
    articled = [f"{'an' if word[0] in 'aeiou' else 'a'} {word}" for word in opening]
    texts = [p for p in dict.fromkeys([*known, *articled, *prompt.split()]) if p not in PUNCTUATION]
    return [*PUNCTUATION, *(" " + text for text in texts)]


def build_tokenizer(prompt: str = "") -> PreTrainedTokenizerFast:
    """The tokenizer; `<s>` is put before every text, as BLIP-2's prompt wants it.

    Args:
        prompt: Words beside the language that are tokens too, for a captioner that is asked in a
            chat. A chat brings its own `<s>`, and blanks and line ends around the image belong
            to its placeholder.
    """
    known = pieces(prompt)
    vocabulary = {piece: i for i, piece in enumerate([*SPECIALS, *known])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Prepend(" ")
    longest_first = sorted(known, key=len, reverse=True)
    pattern = "|".join(re.escape(p) + ("(?![a-z])" if p[0] == " " else "") for p in longest_first)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    backend.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    if not prompt:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=128,
    )
    # Named like this, not as `image_token`: Blip2Processor makes that of it, and fails on a string.
    strip = bool(prompt)
    image = AddedToken(IMAGE, normalized=False, special=True, lstrip=strip, rstrip=strip)
    tokenizer.add_tokens([image], special_tokens=True)
    return tokenizer
