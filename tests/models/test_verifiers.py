"""Verifiers in process against plain forwards of the library, one pair a row."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.checkpoints import UnusableCheckpoint
from models.verifiers.answer_tokens import answer_tokens
from models.verifiers.prompt import SHORT_PROMPTS
from models.verifiers.protocol import Verification, VerificationRequest, Verifier
from models.verifiers.qwen3_vl import VlmVerifierSettings
from tests.fakes.plain_chat import PlainChat
from tests.fakes.verifiers import (
    drawn_requests,
    save_blip_itm,
    save_llava_onevision,
    save_qwen2_5_vl,
    save_qwen3_vl,
)

SAVERS: dict[str, Callable[[Path], Path]] = {
    "qwen3_vl": save_qwen3_vl,
    "qwen2_5_vl": save_qwen2_5_vl,
    "llava_onevision": save_llava_onevision,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("verifiers")
    return {name: save(root / name) for name, save in SAVERS.items()}


def settings(folder: Path, **changes: Any) -> VlmVerifierSettings:
    given = {"model": str(folder), "device": "cpu", "dtype": "fp32", "prompts": SHORT_PROMPTS}
    return VlmVerifierSettings(**{**given, **changes})


def verified(
    folder: Path, requests: Sequence[VerificationRequest], **changes: Any
) -> list[Verification]:
    return list(settings(folder, **changes).load().verify(requests))


def by_the_library(
    folder: Path, requests: Sequence[VerificationRequest], words: Callable[[str], list[str]]
) -> list[tuple[float, float]]:
    """Margin and mass of each pair by the processor's own chat, in a row of its own."""
    chat = PlainChat(folder)
    yes, no = chat.ids([" yes", " no"])
    found = []
    for request in requests:
        first, *rest = words(request.text)
        content: list[dict[str, Any]] = [
            {"type": "text", "text": first},
            {"type": "image", "image": request.reference},
            *({"type": "text", "text": text} for text in rest[:1]),
            {"type": "image", "image": request.candidate},
            *({"type": "text", "text": text} for text in rest[1:]),
        ]
        logits = chat.logits(content)
        probabilities = logits.softmax(dim=0)
        mass = float(probabilities[yes] + probabilities[no])
        found.append((float(logits[yes] - logits[no]), mass))
    return found


@pytest.mark.parametrize("name", SAVERS)
def test_margins_are_those_of_plain_forwards(folders: dict[str, Path], name: str) -> None:
    requests = drawn_requests(queries=3, candidates=4)
    expected = by_the_library(folders[name], requests, lambda text: [text])
    answers = verified(folders[name], requests, batch_size=3)
    assert [answer.key for answer in answers] == [request.key for request in requests]
    assert {answer.status for answer in answers} == {"ok"}
    found = [(answer.margin, answer.mass) for answer in answers]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp([margin for margin, _ in expected]) > 1e-2, "the pictures are ignored"


def test_margins_of_bf16_weights_do_not_tie(folders: dict[str, Path]) -> None:
    requests = drawn_requests(queries=2, candidates=6)
    wide, narrow = (
        np.array([a.margin for a in verified(folders["qwen3_vl"], requests, dtype=dtype)])
        for dtype in ("fp32", "bf16")
    )
    np.testing.assert_allclose(narrow, wide, atol=0.3)
    assert len(np.unique(narrow)) == len(np.unique(wide))


def test_all_roles_of_a_prompt_stand_in_their_order(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    roles = {"candidate": "in the center", "question": "add a heart"}
    for role, text in roles.items():
        (tmp_path / f"{role}.md").write_text(text + "\n")
    prompts = SHORT_PROMPTS.changed(**{role: str(tmp_path / f"{role}.md") for role in roles})
    requests = drawn_requests(queries=1, candidates=3)
    expected = by_the_library(folders["qwen3_vl"], requests, lambda text: [text, *roles.values()])
    answers = verified(folders["qwen3_vl"], requests, prompts=prompts)
    np.testing.assert_allclose([a.margin for a in answers], [m for m, _ in expected], atol=1e-4)


def test_a_picture_is_seen_once_a_call(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel

    seen = []
    features = Qwen3VLModel.get_image_features

    def counted(self: Any, pixels: Any, grids: Any, **options: Any) -> Any:
        seen.append(len(grids))
        return features(self, pixels, grids, **options)

    monkeypatch.setattr(Qwen3VLModel, "get_image_features", counted)
    requests = drawn_requests(queries=4, candidates=6)
    verified(folders["qwen3_vl"], requests)
    pictures = {r.reference_id for r in requests} | {r.candidate_id for r in requests}
    assert sum(seen) == len(pictures) < len(requests)


@pytest.mark.parametrize("name", SAVERS)
def test_an_odd_request_hurts_no_other(folders: dict[str, Path], name: str) -> None:
    good = drawn_requests(queries=1, candidates=4)
    line = Image.new("RGB", (3000, 1))
    mark = {"llava_onevision": "<image>"}.get(name, "<|image_pad|>")
    odd = [
        replace(good[1], key="line", candidate=line, candidate_id="line"),
        replace(good[2], key="mark", text=f"add {mark}", reference_id="other"),
        replace(good[3], key="long", text="red " * 300, reference_id="other"),
    ]
    alone = {a.key: a for a in verified(folders[name], good)}
    mixed = {a.key: a for a in verified(folders[name], [*good[:2], *odd, *good[2:]])}
    statuses = {key: mixed[key].status for key in ("line", "mark", "long")}
    assert statuses["mark"] == "rejected"
    assert statuses["long"] == "overlong"
    if name != "llava_onevision":  # which cuts any picture into tiles
        assert statuses["line"] == "engine_error"
    for key, answer in alone.items():
        assert mixed[key].status == "ok"
        assert mixed[key].margin == pytest.approx(answer.margin, abs=1e-4)
    for key, status in statuses.items():
        assert (mixed[key].margin is None) == (status != "ok")
        assert bool(mixed[key].reason) == (status != "ok")


def test_pixel_limits_change_margins_and_identity(folders: dict[str, Path]) -> None:
    requests = drawn_requests(queries=1, candidates=2)
    usual, small = settings(folders["qwen3_vl"]), settings(folders["qwen3_vl"], max_pixels=4096)
    first, second = (list(s.load().verify(requests)) for s in (usual, small))
    assert first[0].margin != pytest.approx(second[0].margin, abs=1e-4)
    assert usual.fingerprint != small.fingerprint


def test_the_identity_names_what_changes_a_margin(folders: dict[str, Path]) -> None:
    usual = settings(folders["qwen3_vl"])
    whole = usual.changed(prompts={})
    assert usual.fingerprint != whole.fingerprint
    assert usual.fingerprint == usual.changed(batch_size=3).fingerprint
    assert set(usual.fingerprint["prompts"]) == {"query"}
    assert set(whole.fingerprint["prompts"]) == {"judge", "query", "candidate", "question"}


def test_tokens_of_the_answers(folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders["qwen3_vl"])
    found = answer_tokens(folders["qwen3_vl"])
    assert found.yes == (tokenizer.convert_tokens_to_ids(" yes"),)
    assert found.no == (tokenizer.convert_tokens_to_ids(" no"),)
    held = json.loads((folders["qwen3_vl"] / "tokenizer.json").read_text())
    held["model"]["vocab"][" maybe"] = held["model"]["vocab"].pop(" no")
    (tmp_path / "tokenizer.json").write_text(json.dumps(held))
    with pytest.raises(UnusableCheckpoint, match="no single token for 'no'"):
        answer_tokens(tmp_path)


def test_every_single_spelling_counts(tmp_path: Path) -> None:
    """A byte-level tokenizer, as Qwen's, has words with and without a blank."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {
        t: i for i, t in enumerate(["y", "e", "s", "yes", "Ġyes", "Yes", "no", "NO", "Ġ"])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="Ġ"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = answer_tokens(tmp_path)
    assert found.yes == (3, 4, 5)
    assert found.no == (6, 7)


def test_broken_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders["qwen3_vl"], tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    before = settings(folder).fingerprint
    lacking = {key: value for key, value in weights.items() if key != name}
    save_file(lacking, folder / "model.safetensors", metadata={"format": "pt"})
    assert settings(folder).fingerprint != before
    with pytest.raises(UnusableCheckpoint, match="lacks 1 of the weights"):
        settings(folder).check()
    with pytest.raises(UnusableCheckpoint, match="up_proj"):
        verified(folder, drawn_requests(queries=1, candidates=1))
    weights[name][3, 5] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnusableCheckpoint, match="not finite"):
        verified(folder, drawn_requests(queries=1, candidates=1))


def test_blip_matches_texts_as_the_library_does(tmp_path: Path) -> None:
    import torch
    from transformers import AutoProcessor, BlipForImageTextRetrieval

    from models.verifiers.blip_itm import BlipItmSettings

    folder = save_blip_itm(tmp_path / "blip")
    requests = drawn_requests(queries=2, candidates=3)
    requests[1] = replace(requests[1], target_text="a star on a red circle on a blue circle")
    requests[2] = replace(requests[2], target_text=" ")
    requests[4] = replace(requests[4], target_text="red " * 40)
    verifier = BlipItmSettings(model=str(folder), device="cpu", dtype="fp32", batch_size=4).load()
    assert isinstance(verifier, Verifier)
    answers = list(verifier.verify(requests))
    assert [a.status for a in answers] == ["ok", "ok", "rejected", "ok", "overlong", "ok"]
    processor = AutoProcessor.from_pretrained(folder)
    model = BlipForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32).eval()
    for request, answer in zip(requests, answers, strict=True):
        if answer.status != "ok":
            continue
        inputs = processor(images=request.candidate, text=request.target_text, return_tensors="pt")
        with torch.inference_mode():
            matched = float(model(**inputs).itm_score.softmax(dim=1)[0, 1])
        assert answer.probability == pytest.approx(matched, abs=1e-5)
