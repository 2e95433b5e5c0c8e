"""LinCIR's training: keywords, masking, the loss by hand, and resuming."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.textual_inversion.keywords import extractor, function_words, runs
from models.textual_inversion.settings import PRESETS, LinCirConfig

if TYPE_CHECKING:
    from models.encoders.open_clip import OpenClipEncoder
    from models.textual_inversion.masking import TrainingRow

CAPTIONS = [
    f"a {colour} {thing} is sitting on a {place}"
    for colour in ("red", "blue")
    for thing in ("cat", "dog", "cup", "hat")
    for place in ("table", "wooden chair")
]


@pytest.fixture(scope="module")
def rows(encoder: OpenClipEncoder) -> list[TrainingRow]:
    from models.textual_inversion.masking import training_rows

    return training_rows(CAPTIONS, encoder.tower.tokens, function_words)


def decoded(encoder: OpenClipEncoder, row: TrainingRow) -> str:
    """The masked caption in words, its holes written as [$]."""
    tokens = encoder.tower.tokens
    words = [
        "[$]" if i in row.masked.positions else tokens.text([token])
        for i, token in enumerate(row.masked.ids)
    ]
    return " ".join(words[1:-1])


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("a red cat is sitting on the old table", ["a red cat", "the old table"]),
        ("two dogs, three cats", ["two dogs", "three cats"]),
        ("there is it", []),
        ("a man's well-worn hat", ["a man's well-worn hat"]),
        ("", []),
    ],
)
def test_function_words_by_hand(text: str, keywords: list[str]) -> None:
    (spans,) = function_words([text])
    assert [text[start:end] for start, end in spans] == keywords


def test_runs_by_hand() -> None:
    words = [(0, 1), (2, 5), (6, 9), (10, 12)]
    assert runs(words, [True, True, False, True]) == [(0, 5), (10, 12)]
    assert runs(words, [False] * 4) == []


def test_overlapping_spans_are_merged() -> None:
    from models.textual_inversion.masking import merge

    assert merge([(5, 9), (0, 3), (2, 4), (9, 11), (12, 12)]) == [(0, 4), (5, 11)]


def test_cleaning_as_lincir() -> None:
    from models.textual_inversion.masking import clean_caption

    assert clean_caption("  <PERSON> pays $ 5\tHERE ") == "person pays 5 here"
    assert clean_caption(None) == ""


def test_offsets_mask_only_the_keywords(encoder: OpenClipEncoder) -> None:
    from models.textual_inversion.masking import training_rows

    def only_a(texts: Iterable[str]) -> Iterator[list[tuple[int, int]]]:
        return ([(0, 1)] for _ in texts)

    tokens = encoder.tower.tokens
    (row,) = training_rows(["a cat sat"], tokens, only_a)
    assert decoded(encoder, row) == "[$] cat sat"
    # LinCIR's own rule replaces the letter a wherever it stands.
    (row,) = training_rows(["a cat sat"], tokens, only_a, "substring")
    assert decoded(encoder, row) == "[$] c [$] t s [$] t"
    assert row.whole == tokens.row("a cat sat")


def test_captions_without_keywords_or_room(encoder: OpenClipEncoder) -> None:
    from models.textual_inversion.masking import training_rows

    def none(texts: Iterable[str]) -> Iterator[list[tuple[int, int]]]:
        return ([] for _ in texts)

    def last_word(texts: Iterable[str]) -> Iterator[list[tuple[int, int]]]:
        return ([(text.rindex(" ") + 1, len(text))] for text in texts)

    tokens = encoder.tower.tokens
    (row,) = training_rows(["it is there"], tokens, none)
    assert decoded(encoder, row) in {"[$] is there", "it [$] there", "it is [$]"}
    (long,) = training_rows(["word " * 100], tokens, none)
    assert len(long.whole.ids) == 77
    assert not long.whole.truncated
    assert training_rows(["", None, " $ "], tokens, none) == []
    (row,) = training_rows(["at " * 74 + "at"], tokens, last_word)
    assert row.masked.positions == (75,)  # the last place before the end-of-text token


def test_unknown_names_are_refused(encoder: OpenClipEncoder) -> None:
    from models.textual_inversion.masking import training_rows

    with pytest.raises(ValueError, match="spacy, function_words"):
        extractor("nltk")
    with pytest.raises(ValueError, match="offsets, substring"):
        training_rows(CAPTIONS, encoder.tower.tokens, function_words, "regex")


def test_spacy_without_its_model_says_what_to_do() -> None:
    if not (find_spec("spacy") and find_spec("en_core_web_sm")):
        with pytest.raises(ValueError, match="python -m spacy download en_core_web_sm"):
            extractor("spacy")
    else:
        text = "a red cat is sitting on the old table"
        (spans,) = extractor("spacy")([text])
        assert [text[a:b] for a, b in spans] == ["a red cat", "the old table"]


def test_first_loss_by_hand(encoder: OpenClipEncoder, rows: list[TrainingRow]) -> None:
    """Without noise and dropout the first loss can be written down with the library's tower."""
    import torch
    from torch.nn import functional

    from models.textual_inversion.masking import clean_caption
    from models.textual_inversion.training import LinCirTraining

    config = LinCirConfig(steps=1, batch_size=len(rows), noise=0.0, dropout=0.0)
    training = LinCirTraining(config, encoder.tower, rows)
    network = training.network()
    whole = torch.from_numpy(encoder.encode_texts([clean_caption(text) for text in CAPTIONS]))
    tokens = torch.from_numpy(network.tokens(whole.numpy()))
    table = encoder.model.token_embedding.weight
    kept = table[12_345].clone()
    total = 0.0
    with torch.no_grad():
        for row, feature, token in zip(rows, whole, tokens, strict=True):
            table[12_345] = token
            ids = torch.zeros(1, 77, dtype=torch.long)
            for i, each in enumerate(row.masked.ids):
                ids[0, i] = 12_345 if i in row.masked.positions else each
            total += functional.mse_loss(encoder.model.encode_text(ids)[0], feature).item()
        table[12_345] = kept
    assert training.run() == pytest.approx(total / len(rows), rel=1e-5)


def test_a_network_trained_on_unit_inputs_scales_what_it_reads(
    encoder: OpenClipEncoder, rows: list[TrainingRow], tmp_path: Path
) -> None:
    """Saved, loaded and fingerprinted; a network without the setting keeps its fingerprint."""
    import torch

    from models.textual_inversion.fingerprint import mapping_fingerprint
    from models.textual_inversion.network import dump_mapping, load_mapping
    from models.textual_inversion.training import LinCirTraining

    images = np.random.default_rng(1).normal(size=(3, 24)).astype(np.float32) * 7
    known = []
    for unit_input in (False, True):
        config = LinCirConfig(steps=1, batch_size=4, normalise_input=unit_input)
        network = LinCirTraining(config, encoder.tower, rows).network()
        folder = tmp_path / str(unit_input)
        folder.mkdir()
        for name, data in dump_mapping(network, {}).items():
            (folder / name).write_bytes(data)
        read = np.stack([row / np.sqrt((row**2).sum()) if unit_input else row for row in images])
        with torch.no_grad():
            expected = network.module(torch.from_numpy(read)).numpy()
        np.testing.assert_allclose(load_mapping(folder).tokens(images), expected, atol=1e-6)
        assert mapping_fingerprint(folder) == network.fingerprint
        known.append(network.fingerprint)
    assert known[1] == {**known[0], "unit_input": True}


def test_the_preset_of_the_released_code() -> None:
    """Keywords and masking of `loader.py`, hyper-parameters of `train_phi.py` as its README runs it
    (8 processes with a batch of 64)."""
    assert (PRESETS["lincir"].keywords, PRESETS["lincir"].masking) == ("spacy", "substring")
    assert LinCirConfig().model_dump() == {
        "steps": 20_000,
        "batch_size": 8 * 64,
        "learning_rate": 1e-4,
        "weight_decay": 0.01,
        "dropout": 0.5,
        "noise": 1.0,
        "normalise_input": False,
        "seed": 12_345,
    }


def test_training_lowers_the_loss_and_leaves_the_tower(
    encoder: OpenClipEncoder, rows: list[TrainingRow]
) -> None:
    from models.textual_inversion.training import LinCirTraining

    before = encoder.fingerprint, encoder.encode_texts(CAPTIONS[:2])
    config = LinCirConfig(steps=60, batch_size=8, learning_rate=1e-3)
    training = LinCirTraining(config, encoder.tower, rows)
    training.run()
    assert len(training.losses) == 60
    assert np.mean(training.losses[-10:]) < 0.6 * np.mean(training.losses[:5])
    assert training.done
    np.testing.assert_array_equal(encoder.encode_texts(CAPTIONS[:2]), before[1])


def test_resumed_training_ends_with_the_same_weights(
    encoder: OpenClipEncoder, rows: list[TrainingRow]
) -> None:
    import torch

    from models.textual_inversion.training import LinCirTraining

    config = LinCirConfig(steps=12, batch_size=5)
    undisturbed = LinCirTraining(config, encoder.tower, rows)
    undisturbed.run()
    state = LinCirTraining(config, encoder.tower, rows).save()
    for until in (1, 4, 5, 12):
        torch.manual_seed(until)  # whatever else happens in the process must not matter
        resumed = LinCirTraining(config, encoder.tower, rows)
        resumed.load(state)
        resumed.run(until)
        state = resumed.save()
    assert resumed.network().fingerprint == undisturbed.network().fingerprint
    other = LinCirTraining(LinCirConfig(steps=12, batch_size=5, seed=1), encoder.tower, rows)
    other.run()
    assert other.network().fingerprint != undisturbed.network().fingerprint


def test_a_state_of_another_run_is_refused(
    encoder: OpenClipEncoder, rows: list[TrainingRow]
) -> None:
    from models.textual_inversion.training import LinCirTraining

    state = LinCirTraining(LinCirConfig(steps=2, batch_size=4), encoder.tower, rows).save()
    other = LinCirTraining(LinCirConfig(steps=2, batch_size=5), encoder.tower, rows)
    with pytest.raises(ValueError, match="belongs to another run"):
        other.load(state)


def test_every_epoch_takes_every_caption_once(
    encoder: OpenClipEncoder, rows: list[TrainingRow]
) -> None:
    from models.textual_inversion.training import LinCirTraining

    training = LinCirTraining(LinCirConfig(steps=8, batch_size=4), encoder.tower, rows)
    epochs = [
        np.concatenate([training._members(step) for step in range(start, start + 4)])
        for start in (0, 4)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(16))] * 2
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_shipped_folder_can_be_written(
    encoder: OpenClipEncoder, rows: list[TrainingRow], tmp_path: Path
) -> None:
    from models.textual_inversion.network import dump_mapping, load_mapping
    from models.textual_inversion.training import LinCirTraining

    training = LinCirTraining(LinCirConfig(steps=1, batch_size=4), encoder.tower, rows)
    training.run()
    for name, data in dump_mapping(training.network(), {"steps": 1}).items():
        (tmp_path / name).write_bytes(data)
    images = np.random.default_rng(0).normal(size=(3, 24)).astype(np.float32)
    np.testing.assert_array_equal(
        load_mapping(tmp_path).tokens(images), training.network().tokens(images)
    )
