"""Choices in process against plain forwards of the library, one list a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.checkpoints import UnusableCheckpoint
from models.verifiers.grid import draw_grid, marks_of
from models.verifiers.prompt import SHORT_PROMPTS
from models.verifiers.protocol import GridRequest, GridVerifier, sigmoid
from models.verifiers.qwen3_vl import VlmVerifier, VlmVerifierSettings
from tests.fakes.plain_chat import PlainChat
from tests.fakes.verifiers import (
    drawn_grids,
    save_llava_onevision,
    save_qwen2_5_vl,
    save_qwen3_vl,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen3_vl(tmp_path_factory.mktemp("grids"), seed=5, marked=True)


def verifier(folder: Path, batch_size: int = 16) -> VlmVerifier:
    return VlmVerifierSettings(
        model=str(folder), device="cpu", dtype="fp32", prompts=SHORT_PROMPTS, batch_size=batch_size
    ).load()


def by_the_library(
    folder: Path, requests: Sequence[GridRequest]
) -> list[tuple[list[float], float]]:
    """Probability of each mark among the marks, and of all among all tokens, a list a row."""
    chat = PlainChat(folder)
    found = []
    for request in requests:
        content = [
            {"type": "text", "text": request.text},
            {"type": "image", "image": request.reference},
            {"type": "image", "image": request.grid},
        ]
        logits, ids = chat.logits(content), chat.ids(request.marks)
        found.append((logits[ids].softmax(0).tolist(), float(logits.softmax(0)[ids].sum())))
    return found


def test_choices_are_those_of_plain_forwards(folder: Path) -> None:
    """Lists of several lengths in one batch; marks are numbers, or letters where there are more."""
    requests = [*drawn_grids(2, 4), *(replace(r, key=f"l{r.key}") for r in drawn_grids(1, 11))]
    own = verifier(folder, 2)
    assert isinstance(own, GridVerifier)
    choices = list(own.choose(requests))
    assert [choice.key for choice in choices] == [request.key for request in requests]
    expected = by_the_library(folder, requests)
    for (shares, mass), choice in zip(expected, choices, strict=True):
        assert (choice.status, choice.reason) == ("ok", "")
        np.testing.assert_allclose([sigmoid(m) for m in choice.margins], shares, atol=1e-5)
        assert choice.mass == pytest.approx(mass, abs=1e-5)
    assert np.ptp(choices[0].margins) > 1e-2


@pytest.mark.parametrize("save", [save_qwen2_5_vl, save_llava_onevision])
def test_other_families_choose_as_the_library_does(
    save: Callable[[Path, bool], Path], tmp_path: Path
) -> None:
    place = save(tmp_path, True)
    requests = drawn_grids(2, 4)
    expected = by_the_library(place, requests)
    for (shares, _), choice in zip(expected, verifier(place).choose(requests), strict=True):
        np.testing.assert_allclose([sigmoid(m) for m in choice.margins], shares, atol=1e-5)


def test_the_order_of_the_pictures_changes_the_choice(folder: Path) -> None:
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "white", "black")]
    grids = [draw_grid(order, 64) for order in (pictures, pictures[::-1])]
    request = drawn_grids(1, 4)[0]
    first, second = verifier(folder).choose([replace(request, grid=grid) for grid in grids])
    assert np.abs(np.subtract(first.margins, second.margins)).max() > 1e-3


def test_an_odd_list_hurts_no_other(folder: Path) -> None:
    good = drawn_grids(2, 4)
    odd = [
        replace(good[0], key="mark", text="add <|image_pad|>"),
        replace(good[0], key="long", text="red " * 300),
        replace(good[0], key="line", grid=Image.new("RGB", (3000, 1))),
        replace(good[0], key="order", answer="order"),
    ]
    own = verifier(folder)
    alone = {choice.key: choice.margins for choice in own.choose(good)}
    mixed = {choice.key: choice for choice in own.choose([good[0], *odd, good[1]])}
    statuses = {key: mixed[key].status for key in ("mark", "long", "line", "order")}
    assert statuses == {
        **{"mark": "rejected", "long": "overlong", "line": "engine_error", "order": "rejected"}
    }
    assert all(not mixed[key].margins and mixed[key].reason for key in statuses)
    for key, margins in alone.items():
        np.testing.assert_allclose(mixed[key].margins, margins, atol=1e-4)


def test_calls_and_tokens_are_counted(folder: Path) -> None:
    from transformers import AutoProcessor

    from models.metering import measuring

    request = drawn_grids(1, 4)[0]
    with measuring() as meter:
        list(verifier(folder).choose([request, request]))
    processor = AutoProcessor.from_pretrained(folder)
    grids = processor.image_processor([request.reference, request.grid], return_tensors="pt")
    seen = int((grids["image_grid_thw"].prod(-1) // 4).sum())
    words = len(processor.tokenizer(request.text)["input_ids"])
    assert meter.spent.calls == meter.spent.questions == 2
    assert 0 < meter.spent.prompt_tokens / 2 - seen - words < 10  # marks of pictures and turns


def test_a_checkpoint_without_numbers_is_refused(tmp_path: Path) -> None:
    """As the shipped one: its tokenizer knows phrases alone."""
    own = verifier(save_qwen3_vl(tmp_path))
    with pytest.raises(
        UnusableCheckpoint, match=r"no single token for '1'.*verify\.mode=pointwise"
    ):
        list(own.choose(drawn_grids(1, 2)))


def test_marks_of_a_real_kind_of_tokenizer_are_one_token_each(tmp_path: Path) -> None:
    """Byte-level, as Qwen's: with and without a blank."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from models.verifiers.answer_tokens import mark_tokens

    words = ["Ġ", "1", "Ġ1", "2", "A", "ĠA", "12"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="Ġ"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert mark_tokens(tmp_path, ["1", "2", "A"]) == [(1, 2), (3,), (4, 5)]
    with pytest.raises(UnusableCheckpoint, match="no single token for '3'"):
        mark_tokens(tmp_path, marks_of(3))
