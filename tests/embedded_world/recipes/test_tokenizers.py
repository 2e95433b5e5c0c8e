"""The tokenizers cover the language, give its spelling back, and are the shipped ones."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from embedded_world.captions import caption, leave_open, varied_caption
from embedded_world.recipes.clip_texts import composite
from embedded_world.recipes.clip_tokenizer import merges, write_merges
from embedded_world.scenes import sample_scenes
from embedded_world.words import phrases

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="module")
def captioner_tokenizer(
    tmp_path_factory: pytest.TempPathFactory,
) -> PreTrainedTokenizerFast:
    """The tokenizer as it comes back from disk."""
    from transformers import PreTrainedTokenizerFast

    from embedded_world.recipes.captioner_tokenizer import build_captioner_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    build_captioner_tokenizer().save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.fixture(scope="module")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> SimpleTokenizer:
    """open_clip's tokenizer with the generated merges."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(str(write_merges(tmp_path_factory.mktemp("bpe"))))


def texts(count: int = 150) -> list[str]:
    """Captions of every kind."""
    rng = Random(4)
    found = []
    for scene in sample_scenes(rng, count, held_out=True):
        found.append(caption(scene))
        found.append(varied_caption(scene, rng, shuffle=True, synonyms=0.6, lead_in=0.5))
        found.append(varied_caption(leave_open(scene, rng, 0.5), rng))
    return found


def test_captions_round_trip_exactly(captioner_tokenizer: PreTrainedTokenizerFast) -> None:
    from embedded_world.recipes.captioner_tokenizer import LONGEST

    for text in texts():
        ids = captioner_tokenizer(text)["input_ids"]
        assert captioner_tokenizer.unk_token_id not in ids
        assert captioner_tokenizer.decode(ids, skip_special_tokens=True) == text
        assert len(ids) < LONGEST


def test_llavas_captions_round_trip_and_its_chat_is_known() -> None:
    from embedded_world.recipes.llava import build_llava_tokenizer, caption_prompt

    tokenizer = build_llava_tokenizer()
    for text in texts(50):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    chat = tokenizer(f"<s>USER: <image><image>\n{caption_prompt()} ASSISTANT:")["input_ids"]
    assert tokenizer.unk_token_id not in chat
    tokens = tokenizer.convert_ids_to_tokens(chat)
    assert tokens[:5] == ["<s>", " USER:", "<image>", "<image>", " Describe"]
    assert "".join(tokens[4:]) == f" {caption_prompt()} ASSISTANT:"


def test_phrases_are_single_tokens(captioner_tokenizer: PreTrainedTokenizerFast) -> None:
    text = "at the top left a small striped red circle, on a white background"
    ids = captioner_tokenizer(text)["input_ids"]
    words = ["<s>", " at the top left", " a small", " striped", " red", " circle", ",", None]
    assert captioner_tokenizer.convert_ids_to_tokens(ids)[:7] == words[:7]
    assert len(ids) == len(words)


def test_unknown_words_do_not_eat_known_ones(
    captioner_tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = captioner_tokenizer("a redwood star")["input_ids"]
    tokens = captioner_tokenizer.convert_ids_to_tokens(ids)
    assert " red" not in tokens
    assert tokens[-1] == " star"


def test_every_word_is_one_clip_token(clip_tokenizer: SimpleTokenizer) -> None:
    words = {word for phrase in phrases() for word in re.findall("[a-z]+", phrase)}
    assert {word for word in words if len(clip_tokenizer.encode(word)) != 1} == set()
    assert [len(clip_tokenizer.encode(mark)) for mark in ",.$"] == [1, 1, 1]


def test_clip_token_counts_are_word_counts(clip_tokenizer: SimpleTokenizer) -> None:
    rng = Random(8)
    for scene in sample_scenes(rng, 100, held_out=True):
        text = composite(scene, rng)
        ids = clip_tokenizer.encode(text)
        assert len(ids) == len(re.findall(r"\w+|[.,]", text))
        assert clip_tokenizer.decode(ids).split() == re.findall(r"\w+|[.,]", text.lower())


def test_later_words_do_not_break_earlier_ones() -> None:
    # "the" and "then" share their beginning, "hen" lies within "then".
    vocabulary = ["the", "then", "hen", "on", "heron"]
    path_ranks = merges(vocabulary)
    assert len(set(path_ranks)) == len(path_ranks)
    assert merges(vocabulary[:2]) == path_ranks[: len(merges(vocabulary[:2]))]


def test_merges_file_is_reproducible(tmp_path: Path) -> None:
    first = write_merges(tmp_path).read_bytes()
    assert write_merges(tmp_path).read_bytes() == first
    assert not gzip.decompress(first).endswith(b"\n"), "open_clip would read an empty merge"


@pytest.mark.parametrize("name", ["blip2", "llava", "llama", "llama_pointing"])
def test_the_shipped_files_are_those_that_the_recipes_write(
    repository: Path, name: str, tmp_path: Path
) -> None:
    from embedded_world.recipes.blip2 import blip2_processor
    from embedded_world.recipes.captioner_tokenizer import build_captioner_tokenizer
    from embedded_world.recipes.llava import build_llava_tokenizer, llava_processor
    from embedded_world.recipes.pointing_model import build_pointing_tokenizer
    from embedded_world.recipes.text_tokenizer import build_text_tokenizer

    made = {
        "blip2": lambda: blip2_processor(build_captioner_tokenizer()),
        "llava": lambda: llava_processor(build_llava_tokenizer()),
        "llama": build_text_tokenizer,
        "llama_pointing": build_pointing_tokenizer,
    }[name]()
    made.save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json"} <= files
    shipped = repository / "models" / "embedded" / name
    assert [f for f in files if (tmp_path / f).read_bytes() != (shipped / f).read_bytes()] == []
