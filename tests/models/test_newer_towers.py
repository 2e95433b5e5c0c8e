"""Text towers of newer families: against open_clip's own encoding of the same texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.encoders.spec import EncoderSpec
from models.protocols import SplicedText
from tests.fakes.newer_towers import FAMILIES

if TYPE_CHECKING:
    from models.encoders.open_clip import OpenClipEncoder

    Encoders = dict[str, OpenClipEncoder]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Encoders:
    from models.encoders.loading import load_encoder
    from tests.fakes.newer_towers import write_newer

    made = {}
    for family in FAMILIES:
        folder = write_newer(tmp_path_factory.mktemp(family), family)
        made[family] = load_encoder(EncoderSpec(name=str(folder), device="cpu"))
    return made


def library(encoder: OpenClipEncoder, texts: list[str]) -> np.ndarray:
    """Features as open_clip makes them: its tokenizer, its tower."""
    import torch

    with torch.inference_mode():
        return encoder.model.encode_text(encoder.tokenizer(texts)).numpy()


def require_same(made: np.ndarray, expected: np.ndarray) -> None:
    """To 1e-6, as unit vectors."""
    made, expected = (each / np.linalg.norm(each, axis=1)[:, None] for each in (made, expected))
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_equal_open_clip(encoders: Encoders, family: str) -> None:
    encoder = encoders[family]
    room = encoder.tower.tokens.context_length - {"SigLIP2": 1, "MetaCLIP2-L": 1}.get(family, 2)
    full, over = "cat " * room, "cat " * (room + 1)
    texts = [
        "a photo of a cat",
        full,
        over,
        "the cat's hat, well-worn: $5 & <b>_new_</b>!",
        "A Cat And A DOG in Paris",
        "le café rouge, 猫 ☃",
        "",
    ]
    tower = encoder.tower
    rows = [tower.tokens.row(text) for text in texts]
    assert encoder.overlong([full, over]) == [False, True]
    require_same(tower.encode_rows(rows), library(encoder, texts))
    require_same(encoder.encode_texts(texts), library(encoder, texts))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        ("a photo of", "that is red", "a photo of {} that is red"),
        ("a photo of", "", "a photo of {}"),
        ("", "and a dog", "{} and a dog"),
        ("a photo of", ", that is red. The dog", "a photo of {}, that is red. The dog"),
        (" A Photo (of ", " )", "A Photo (of {} )"),
        ("", "", "{}"),
    ],
)
def test_a_word_in_the_hole_is_the_text_with_the_word(
    encoders: Encoders, family: str, before: str, after: str, whole: str
) -> None:
    encoder = encoders[family]
    tower, text = encoder.tower, SplicedText(before, after)
    spelled = [whole.format(word) for word in ("cat", "dog")]
    row = tower.tokens.spliced_row(text)
    (hole,) = row.positions
    pieces = [tower.tokens.row(each).ids for each in spelled]
    assert [len(each) for each in pieces] == [len(row.ids)] * 2  # each word is one piece
    table = tower.embedding.weight.detach().numpy()
    tokens = table[[each[hole] for each in pieces]]
    require_same(encoder.encode_spliced([text] * 2, tokens), library(encoder, spelled))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_overlong_text_keeps_its_pseudo_token(encoders: Encoders, family: str) -> None:
    tokens = encoders[family].tower.tokens
    for text in (SplicedText("a dog", "cat " * 99), SplicedText("cat " * 99, "dog")):
        row = tokens.spliced_row(text)
        assert (len(row.ids), len(row.positions), row.truncated) == (
            tokens.context_length,
            1,
            True,
        )
        assert row.ids[-1] == tokens.end
    assert row.positions == (tokens.context_length - 2,)


def test_written_special_tokens_are_text_that_says_nothing(encoders: Encoders) -> None:
    encoder = encoders["MetaCLIP2-H"]  # it cleans blanks alone
    ended, plain = encoder.encode_texts(["a cat </s> that is red", "a cat that is red"])
    require_same(ended[None], plain[None])


@pytest.mark.parametrize("family", ["SigLIP2", "MobileCLIP2-S"])
def test_batches_and_their_sizes_change_nothing(
    encoders: Encoders, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.encoders import text_tower

    encoder, random = encoders[family], np.random.default_rng(0)
    texts = [SplicedText("a photo of", "red " * (i % 9)) for i in range(12)]
    tokens = random.normal(size=(12, 40)).astype(np.float32)
    whole = encoder.encode_spliced(texts, tokens)
    monkeypatch.setitem(text_tower.TOKENS_PER_BATCH, "cpu", 2 * 77)
    require_same(encoder.encode_spliced(texts, tokens), whole)


def test_the_batch_is_counted_in_positions_that_are_computed(
    encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of a tower without causal mask has the whole context, however short its text."""
    from models.encoders import text_tower

    monkeypatch.setitem(text_tower.TOKENS_PER_BATCH, "cpu", 4 * 24)
    seen: list[int] = []
    for family, batches in (("SigLIP2", [4, 4, 4]), ("MetaCLIP2-L", [12])):
        tower = encoders[family].tower
        hook = tower.ln_final.register_forward_hook(lambda *given: seen.append(len(given[1][0])))
        tower.encode_rows([tower.tokens.row("a cat")] * 12)
        hook.remove()
        assert seen == batches
        seen.clear()


@pytest.mark.parametrize("family", FAMILIES)
def test_lincir_trains_on_it(encoders: Encoders, family: str) -> None:
    from models.textual_inversion.keywords import function_words
    from models.textual_inversion.masking import training_rows
    from models.textual_inversion.settings import LinCirConfig
    from models.textual_inversion.training import LinCirTraining

    tower = encoders[family].tower
    rows = training_rows(
        ["a red cat on a table", "Two Dogs, in Paris", "cat " * 99], tower.tokens, function_words
    )
    assert all(row.masked.positions for row in rows)
    assert [row.whole.truncated for row in rows] == [False] * 3
    training = LinCirTraining(LinCirConfig(steps=3, batch_size=3), tower, rows)
    training.run()
    shape = training.network().shape
    assert (shape.dim_in, shape.dim_out) == (24, 40)


def test_case_is_kept_in_training_where_the_tokenizer_keeps_it(encoders: Encoders) -> None:
    from models.textual_inversion.keywords import function_words
    from models.textual_inversion.masking import training_rows

    caption = "A Cat in Paris, <PERSON> for $5"
    seen = {}
    for family in FAMILIES:
        tokens = encoders[family].tower.tokens
        (row,) = training_rows([caption], tokens, function_words)
        seen[family] = tokens.text(row.whole.ids)
        assert row.masked.positions
    assert "Cat in Paris, person for" in seen.pop("MetaCLIP2-H")
    assert all("cat in " in text for text in seen.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_trainings_read_the_same_features(encoders: Encoders, family: str) -> None:
    """Rows as trainings pad them, and gradients for the tokens, against the encoder's own way."""
    import torch

    from models.textual_inversion.oti import encoded

    encoder = encoders[family]
    texts = [SplicedText("a photo of", "that is red"), SplicedText("", "and a dog")]
    tokens = np.random.default_rng(0).normal(size=(2, 40)).astype(np.float32)
    given = torch.from_numpy(tokens).requires_grad_(True)
    made = encoded(encoder.tower, [encoder.tower.tokens.spliced_row(t) for t in texts], given)
    require_same(made.detach().numpy(), encoder.encode_spliced(texts, tokens))
    made.sum().backward()
    assert given.grad is not None
    assert (given.grad.norm(dim=1) > 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_read_up_to_the_position_of_the_feature(encoders: Encoders, family: str) -> None:
    """CompoDiff's reading of a text: open_clip's positions before pooling."""
    import torch

    from models.compodiff.token_states import BackboneStates

    encoder = encoders[family]
    texts = ["a photo of a cat", "the dog"]
    ids = encoder.tokenizer(texts)
    tower = getattr(encoder.model, "text", encoder.model)
    with torch.inference_mode():
        x = tower.token_embedding(ids) + tower.positional_embedding
        expected = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask))
    found = BackboneStates(encoder.tower).states(texts)
    seen = found.mask.sum(dim=1).tolist()
    lengths = [len(encoder.tower.tokens.row(text).ids) for text in texts]
    assert seen == {"SigLIP2": [24, 24], "CLIPA": [32, 32]}.get(family, lengths)
    for row, count in enumerate(seen):
        np.testing.assert_allclose(
            found.states[row, :count].numpy(), expected[row, :count].numpy(), atol=5e-6
        )


def test_what_would_be_read_elsewhere_is_refused(
    encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Obstacles that the library would meet without a word, all of them named."""
    from models.encoders.text_tower import why_unsupported

    encoder = encoders["MetaCLIP2-H"]
    model, tokenizer = encoder.model, encoder.tokenizer

    def reason() -> str:
        return why_unsupported(model, tokenizer)

    assert reason() == ""
    monkeypatch.setattr(model, "text_eos_id", 5)
    assert reason() == "its text feature is read at id 5, texts end with 2"
    monkeypatch.setattr(model, "text_pool_type", "argmax")
    assert "largest id" in reason()
    monkeypatch.setattr(model, "text_pool_type", "first")
    monkeypatch.setattr(tokenizer.tokenizer, "padding_side", "left")
    assert all(part in reason() for part in ("other tokens around texts", "pooled by 'first'"))
    monkeypatch.setattr(tokenizer.tokenizer, "padding_side", "right")
    monkeypatch.setattr(tokenizer, "tokenizer_mode", "clips")
    assert "(HFTokenizer) does not say where its pieces begin" in reason()
    assert "(object) is neither" in why_unsupported(model, object())
