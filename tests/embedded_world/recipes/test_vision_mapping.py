"""The spans that the mapping network's recipe masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from embedded_world.recipes.clip_tokenizer import write_merges

if TYPE_CHECKING:
    from models.encoders.text_tokens import TextTokens


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TextTokens:
    """The world's tokenizer as the text tower uses it."""
    from open_clip.tokenizer import SimpleTokenizer

    from models.encoders.text_tokens import TextTokens

    path: Path = write_merges(tmp_path_factory.mktemp("bpe"))
    return TextTokens(SimpleTokenizer(str(path), context_length=77), 77)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("a photo of a red star", "a photo of $"),
        ("a photo of a red star that make it blue", "a photo of $ that make it blue"),
        (
            "a photo of in the center a red star. and the photo should have a heart",
            "a photo of $. and the photo should have a heart",
        ),
        (
            "a photo of x, on a gray background that make it blue. and the photo should have y",
            "a photo of $ that make it blue. and the photo should have y",
        ),
    ],
)
def test_the_description_is_masked_whole(text: str, masked: str) -> None:
    from embedded_world.recipes.mapping import description

    ((start, end),) = next(description([text]))
    assert text[:start] + "$" + text[end:] == masked


def test_texts_of_another_form_have_no_description() -> None:
    from embedded_world.recipes.mapping import description

    assert list(description(["in the center a red star"])) == [[]]


def test_rows_mix_whole_descriptions_and_keywords(tokens: TextTokens) -> None:
    from embedded_world.recipes.mapping import lincir_rows

    rows = lincir_rows(tokens, 80, seed=0, keyword_share=0.25)
    assert len(rows) == 80
    keyworded, whole = rows[:20], rows[20:]
    # In "a photo of $ ..." the token stands fourth, after start-of-text and three words.
    assert all(row.masked.positions == (4,) for row in whole)
    assert max(len(row.masked.positions) for row in keyworded) > 3
    assert all(row.whole.positions == () for row in rows)
