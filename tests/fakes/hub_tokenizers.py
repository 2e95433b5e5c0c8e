"""Small tokenizers of `tokenizers` as SigLIP2, MetaCLIP2 and CLIPA publish theirs.

Pieces come from a few sentences; special ids, treatment of blanks and what stands around a text are
those of the published files: Gemma's (SigLIP2), XLM-V's and mT5's (MetaCLIP2), BERT's (CLIPA).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["gemma", "xlm-v", "mt5", "bert"]

SENTENCES: Final = (
    "a photo of a cat that is red",
    "a photo of a dog on a table",
    "the cat and the dog sit under the tree",
    "two red cats, one blue dog and a green tree",
    "A Cat and a Dog in Paris",
    "it is a long photo of a word that shows a word",
)
WORDS: Final = ("cat", "dog", "red", "tree", "word")
"""Each is one piece behind a blank."""

TEXT: Final[Mapping[Kind, Mapping[str, Any]]] = {
    "gemma": {"tokenizer_kwargs": {"clean": "canonicalize"}},
    "xlm-v": {"pool_type": "eos", "eos_id": 2},
    "mt5": {"pool_type": "eos", "eos_id": 1, "tokenizer_kwargs": {"clean": "canonicalize"}},
    "bert": {"tokenizer_kwargs": {"strip_sep_token": True}},
}
"""What open_clip's configurations say of each."""

_SPECIAL: Final[Mapping[Kind, tuple[str, ...]]] = {
    "gemma": ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"),
    "xlm-v": ("<s>", "<pad>", "</s>", "<unk>"),
    "mt5": ("<pad>", "</s>", "<unk>"),
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
}
_CONFIG: Final[Mapping[Kind, Mapping[str, Any]]] = {
    "gemma": {
        "tokenizer_class": "GemmaTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "add_bos_token": False,
        "add_eos_token": True,
    },
    "xlm-v": {
        "tokenizer_class": "XLMRobertaTokenizerFast",
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
    },
    "mt5": {"tokenizer_class": "T5TokenizerFast", "eos_token": "</s>", "extra_ids": 0},
    "bert": {
        "tokenizer_class": "BertTokenizerFast",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
}
_AROUND: Final[Mapping[Kind, str]] = {
    "gemma": "$A <eos>",
    "xlm-v": "<s> $A </s>",
    "mt5": "$A </s>",
    "bert": "[CLS] $A [SEP]",
}


def write_tokenizer(folder: Path, kind: Kind) -> int:
    """Write `tokenizer.json` and `tokenizer_config.json`; returns the number of tokens."""
    from tokenizers import processors

    special, own = _SPECIAL[kind], _CONFIG[kind]
    made = {"gemma": _gemma, "bert": _word_pieces}.get(kind, _unigram)(special)
    made.add_special_tokens(list(special))
    if kind == "xlm-v":
        made.add_special_tokens(["<mask>"])  # behind all pieces, as published
    made.post_processor = processors.TemplateProcessing(
        single=_AROUND[kind].split(), special_tokens=[(token, i) for i, token in enumerate(special)]
    )
    made.save(str(folder / "tokenizer.json"))
    config = {"padding_side": "right", "pad_token": "<pad>", "unk_token": "<unk>", **own}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return int(made.get_vocab_size())


def _gemma(special: tuple[str, ...]) -> Tokenizer:
    """Byte pairs; a text begins without a blank."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    # Published pieces cross no blank; training has to be told so.
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=list(special), show_progress=False)
    made.train_from_iterator([*SENTENCES, *(f"a {word}" for word in WORDS * 9)], trainer)
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return made


def _unigram(special: tuple[str, ...]) -> Tokenizer:
    """Words and letters; a text begins with a blank."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = {f"▁{word}" for text in SENTENCES for word in text.replace(",", "").split()}
    letters = {letter for text in SENTENCES for letter in text if letter != " "} | {"▁"}
    pieces = [(token, 0.0) for token in special]
    pieces += [(word, -5.0) for word in sorted(words)]
    pieces += [(letter, -10.0) for letter in sorted(letters | set(".,$-'"))]
    made = Tokenizer(models.Unigram(pieces, unk_id=special.index("<unk>")))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made


def _word_pieces(special: tuple[str, ...]) -> Tokenizer:
    """Words in small letters, and letters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = {word for text in SENTENCES for word in text.lower().replace(",", "").split()}
    letters = set("abcdefghijklmnopqrstuvwxyz.,$()-'")
    pieces = [*special, *sorted(words | letters), *(f"##{letter}" for letter in sorted(letters))]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made
