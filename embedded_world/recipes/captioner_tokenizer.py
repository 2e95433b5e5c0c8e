"""The captioners' tokenizer: every phrase of the language is one token.

A token carries the blank before it, so that decoding joins tokens and gives back the exact
spelling, commas included.
"""

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from embedded_world.recipes.word_tokenizers import SPECIALS, longest_first, word_tokenizer
from embedded_world.scenes import COLOURS, FILLS, SIZES
from embedded_world.words import PLAIN, article, phrases

IMAGE = "<image>"
PUNCTUATION = (",", ".")
LONGEST = 30
"""Most tokens of a caption; the longest in the language has 21."""


def pieces(prompt: str = "") -> list[str]:
    """Everything that is one token: punctuation bare, all else with the blank before it."""
    known = phrases()
    opening = [word for word in known if PLAIN.get(word, word) in (*SIZES, *FILLS, *COLOURS)]
    articled = [f"{article(word)} {word}" for word in opening]
    texts = [p for p in dict.fromkeys([*known, *articled, *prompt.split()]) if p not in PUNCTUATION]
    return [*PUNCTUATION, *(" " + text for text in texts)]


def build_captioner_tokenizer(prompt: str = "", longest: int = 128) -> PreTrainedTokenizerFast:
    """The tokenizer; `<s>` is put before every text, as BLIP-2's prompt wants it.

    Args:
        prompt: Words outside the language that are tokens too, for a captioner that answers in a
            chat. A chat brings its own `<s>`, and blanks and line ends around the image belong
            to its placeholder.
        longest: Most tokens that the model takes.
    """
    known = pieces(prompt)
    tokenizer = word_tokenizer(
        [*SPECIALS, IMAGE, *known],
        normalizer=normalizers.Prepend(" "),
        split=pre_tokenizers.Split(Regex(longest_first(known, "(?![a-z])")), behavior="isolated"),
        decoder=decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
        opened=not prompt,
        longest=longest,
    )
    # Named like this, not as `image_token`: Blip2Processor makes that of it, and fails on a string.
    strip = bool(prompt)
    image = AddedToken(IMAGE, normalized=False, special=True, lstrip=strip, rstrip=strip)
    tokenizer.add_tokens([image], special_tokens=True)
    return tokenizer
