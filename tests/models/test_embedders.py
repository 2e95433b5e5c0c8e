"""Embedders in process against hand-written prompts and plain forwards of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from models.embedders.chat_embedder import ChatEmbedderSettings
from models.embedders.clip_embedder import ClipEmbedderSettings
from models.embedders.protocol import ComposedQuery
from tests.fakes.embedders import save_clip, save_llava_next, save_qwen2_vl, save_qwen3_vl

TEXT, TOLD = "make the circle red", "add a blue star"
EYE = "<|vision_start|><|image_pad|><|vision_end|>"
SYSTEM = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n"
END = "<|im_end|>\n<|im_start|>assistant\n"
FORMS: dict[str, tuple[str, str, str, str]] = {
    # preset: architecture, a query by hand, a text alone, a target by hand
    "qwen3-vl-embedding": (
        "qwen3_vl",
        f"{SYSTEM.format(TOLD + '.')}{EYE}{TEXT}{END}",
        f"{SYSTEM.format(TOLD + '.')}{TEXT}{END}",
        f"{SYSTEM.format(chr(82) + 'epresent the user' + chr(39) + 's input.')}{EYE}{END}",
    ),
    "gme": (
        "qwen2_vl",
        f"{SYSTEM.format(TOLD)}{EYE}{TEXT}{END}<|endoftext|>",
        f"{SYSTEM.format(TOLD)}{TEXT}{END}<|endoftext|>",
        f"{SYSTEM.format('You are a helpful assistant.')}{EYE}{END}<|endoftext|>",
    ),
    "vlm2vec": (
        "qwen2_vl",
        f"<|image_pad|>\n{TOLD} {TEXT}\n",
        f"{TOLD} {TEXT}\n",
        "<|image_pad|>\nRepresent the given image.\n",
    ),
    "bge-vl-mllm": (
        "llava_next",
        f"[INST] \n <instruct> {TOLD} <query>  {TEXT} \n <image> [/INST]",
        f"[INST] \n <instruct> {TOLD} <query>  {TEXT} \n [/INST]",
        "[INST]  <image> [/INST]",
    ),
}
SAVERS: dict[str, Callable[[Path], Path]] = {
    "qwen3_vl": save_qwen3_vl,
    "qwen2_vl": save_qwen2_vl,
    "llava_next": save_llava_next,
    "clip": save_clip,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("embedders")
    return {name: save(root / name) for name, save in SAVERS.items()}


def settings(folder: Path, preset: str, **changes: Any) -> ChatEmbedderSettings:
    form = {"preset": preset, "min_pixels": 0, "max_pixels": 0, **changes.pop("form", {})}
    given = {"model": str(folder), "device": "cpu", "dtype": "fp32", "form": form, **changes}
    return ChatEmbedderSettings.model_validate(given)


def pictures(count: int = 4) -> list[Image.Image]:
    """Pictures of noise in several sizes."""
    rng = np.random.default_rng(0)
    sizes = ((96, 96), (130, 70), (60, 120))
    drawn = (rng.integers(0, 256, (*sizes[i % 3], 3), dtype=np.uint8) for i in range(count))
    return [Image.fromarray(pixels) for pixels in drawn]


def by_the_library(folder: Path, prompts: Sequence[str], images: Sequence[Any]) -> Any:
    """The last hidden state behind each prompt, one at a time."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    made = []
    for prompt, image in zip(prompts, images, strict=True):
        shown = None if image is None else [image]
        inputs = processor(text=[prompt], images=shown, return_tensors="pt")
        with torch.inference_mode():
            out = model(**inputs, output_hidden_states=True)
        made.append(out.hidden_states[-1][0, -1].numpy())
    return np.stack(made)


@pytest.mark.parametrize("preset", FORMS)
def test_a_form_is_the_prompt_by_hand(folders: dict[str, Path], preset: str) -> None:
    """Pictures with text, a text alone and targets; in batches of three, so that rows are padded.

    Pictures of the form of 512 x 512 are brought to it by hand.
    """
    kind, query, alone, target = FORMS[preset]
    drawn = pictures()
    seen = [p.resize((512, 512)) for p in drawn] if preset == "bge-vl-mllm" else drawn
    chosen = settings(folders[kind], preset, batch_size=3)
    embedder = chosen.load()
    asked = [*(ComposedQuery((p,), TEXT) for p in drawn), ComposedQuery((), TEXT)]
    found = embedder.encode_composed(asked, TOLD)
    wanted = by_the_library(folders[kind], [query] * 4 + [alone], [*seen, None])
    assert found.reasons == ("",) * 5
    assert found.vectors.dtype == np.float32
    assert found.vectors.shape == (5, chosen.dim)
    np.testing.assert_allclose(found.vectors, wanted, atol=1e-5, rtol=1e-4)
    assert np.abs(found.vectors[0] - found.vectors[2]).max() > 1e-3, "the picture is ignored"
    shown = embedder.encode_targets(iter(drawn))
    np.testing.assert_allclose(
        shown.vectors, by_the_library(folders[kind], [target] * 4, seen), atol=1e-5, rtol=1e-4
    )
    other = embedder.encode_composed(asked[:1], TEXT)
    assert np.abs(other.vectors[0] - found.vectors[0]).max() > 1e-3, "the instruction is ignored"


def test_settings_change_a_form_and_unknown_ones_are_refused(folders: dict[str, Path]) -> None:
    drawn = pictures(1)
    query = [ComposedQuery((drawn[0],), TEXT)]
    form = {"order": ["text", "pictures"], "punctuated": False, "header": False, "end": "<s>"}
    own = settings(folders["qwen3_vl"], "qwen3-vl-embedding", form=form, dimensions=8)
    found = own.load().encode_composed(query, TOLD).vectors
    prompt = f"{SYSTEM.format(TOLD)}{TEXT}{EYE}<|im_end|>\n<s>"
    wanted = by_the_library(folders["qwen3_vl"], [prompt], drawn)
    assert own.dim == 8
    np.testing.assert_allclose(found, wanted[:, :8], atol=1e-5, rtol=1e-4)
    plain = settings(folders["qwen3_vl"], "qwen3-vl-embedding")
    assert own.fingerprint != plain.fingerprint
    assert plain.changed(instruction=TOLD).fingerprint == plain.fingerprint  # targets stay
    assert plain.changed(instruction=TOLD).asked == TOLD
    with pytest.raises(ValidationError, match="'gme', 'vlm2vec' or 'bge-vl-mllm'"):
        settings(folders["qwen3_vl"], "e5-v")
    with pytest.raises(ValueError, match=r"dimensions=4096.*128 or less"):
        _ = settings(folders["qwen3_vl"], "gme", dimensions=4096).dim


def test_a_query_at_fault_stands_alone(folders: dict[str, Path]) -> None:
    drawn = pictures(2)
    asked = [
        ComposedQuery((drawn[0],), TEXT),
        ComposedQuery((Image.new("RGB", (3000, 2)),), TEXT),
        ComposedQuery((drawn[1],), f"{TEXT} <|image_pad|>"),
        ComposedQuery((drawn[1],), TEXT),
    ]
    chosen = settings(folders["qwen2_vl"], "gme")
    found = chosen.load().encode_composed(asked, TOLD)
    alone = chosen.load().encode_composed([asked[0], asked[3]], TOLD)
    assert [bool(reason) for reason in found.reasons] == [False, True, True, False]
    assert "3000x2" in found.reasons[1]
    assert "must not name it" in found.reasons[2]
    np.testing.assert_allclose(found.vectors[[0, 3]], alone.vectors, atol=1e-5, rtol=1e-4)
    assert not found.vectors[1:3].any()


def test_clips_towers_are_added(folders: dict[str, Path]) -> None:
    import torch
    from transformers import CLIPModel, CLIPProcessor

    folder, (first, second, *_) = folders["clip"], pictures()
    chosen = ClipEmbedderSettings(model=str(folder), device="cpu", dtype="fp32", batch_size=3)
    asked = [
        ComposedQuery((first,), TEXT),
        ComposedQuery((), TEXT),
        ComposedQuery((first, second), ""),
        ComposedQuery((), ""),
    ]
    found = chosen.load().encode_composed(asked, "is not read")
    processor, model = CLIPProcessor.from_pretrained(folder), CLIPModel.from_pretrained(folder)
    inputs = processor(text=[TEXT], images=[first, second], return_tensors="pt")
    with torch.inference_mode():
        out = model.eval()(**inputs)
        one, two = out.vision_model_output.pooler_output.numpy()  # projected, not normalised
        (text,) = out.text_model_output.pooler_output.numpy()
    np.testing.assert_allclose(found.vectors[:3], [one + text, text, (one + two) / 2], atol=1e-5)
    assert found.reasons[:3] == ("", "", "")
    assert "neither pictures nor a text" in found.reasons[3]
    assert chosen.dim == 24
    shown = chosen.load().encode_targets([first, second]).vectors
    np.testing.assert_allclose(shown, [one, two], atol=1e-5)
    assert chosen.changed(instruction="x").asked == ""
