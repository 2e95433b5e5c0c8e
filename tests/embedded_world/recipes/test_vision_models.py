"""The shipped models load through their libraries and are as good as their cards say."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from embedded_world.captions import caption
from embedded_world.drawing import draw
from embedded_world.recipes.clip_tokenizer import BPE_FILE, write_merges
from embedded_world.scenes import sample_scenes
from models.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from embedded_world.recipes.shipped_captioners import ShippedBlip2, ShippedLlava
    from models.encoders.open_clip import OpenClipEncoder

pytestmark = pytest.mark.slow

SLACK = 0.03
"""Reduced samples may fall this far below a gate without the model being worse."""
ALL_WEIGHTS = 24 * 2**20
SMALL_CLIP = 1.2 * 2**20
"""Bytes: of all weights in the tree, and of the small CLIP's folder."""


@pytest.fixture(scope="module")
def embedded(repository: Path) -> Path:
    """Folder of the shipped models."""
    return repository / "models" / "embedded"


@pytest.fixture(scope="module")
def encoder(embedded: Path) -> OpenClipEncoder:
    """The shipped CLIP."""
    from models.encoders.loading import load_encoder

    return load_encoder(EncoderSpec(name=str(embedded / "clip"), device="cpu"))


@pytest.fixture(scope="module")
def small_encoder(embedded: Path) -> OpenClipEncoder:
    """The second, smaller CLIP."""
    from models.encoders.loading import load_encoder

    return load_encoder(EncoderSpec(name=str(embedded / "clip_small"), device="cpu"))


@pytest.fixture(scope="module")
def captioner(embedded: Path) -> ShippedBlip2:
    """The shipped BLIP-2."""
    from embedded_world.recipes.shipped_captioners import ShippedBlip2

    return ShippedBlip2(embedded / "blip2")


@pytest.mark.parametrize(
    "name", ["clip", "clip_small", "blip2", "llava", "lincir", "verifier", "llama_pointing"]
)
def test_weights_are_small_and_half_precision(embedded: Path, name: str) -> None:
    from safetensors import safe_open

    (weights,) = (embedded / name).glob("*.safetensors")
    assert weights.stat().st_size < 4_000_000
    with safe_open(weights, "pt") as file:
        types = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    assert types <= {"F16", "I64"}


def test_all_weights_are_small_enough_to_ship(embedded: Path) -> None:
    weights = sum(path.stat().st_size for path in embedded.rglob("*.safetensors"))
    assert 10 * 2**20 < weights <= ALL_WEIGHTS
    folder = sum(path.stat().st_size for path in (embedded / "clip_small").iterdir())
    assert folder <= SMALL_CLIP


@pytest.mark.parametrize(("name", "loaded"), [("clip", "encoder"), ("clip_small", "small_encoder")])
def test_clips_load_by_open_clip_alone_and_equal_the_encoder(
    embedded: Path, name: str, loaded: str, request: pytest.FixtureRequest
) -> None:
    import open_clip
    import torch
    from open_clip.tokenizer import SimpleTokenizer

    encoder: OpenClipEncoder = request.getfixturevalue(loaded)
    folder = embedded / name
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = SimpleTokenizer(str(folder / BPE_FILE), context_length=77)
    scene = sample_scenes(Random(0), 1, held_out=True)[0]
    picture, text = draw(scene, 0), caption(scene)
    with torch.no_grad():
        image_features = model.eval().encode_image(preprocess(picture)[None])[0]
        text_features = model.encode_text(tokenizer([text]))[0]
    ours = torch.from_numpy(encoder.encode_images([picture])[0])
    assert torch.allclose(image_features, ours, atol=1e-5)
    assert torch.allclose(
        text_features, torch.from_numpy(encoder.encode_texts([text])[0]), atol=1e-5
    )


def test_shipped_clips_are_the_recipes(embedded: Path) -> None:
    """The command in each folder makes a model of the shipped architecture there."""
    from open_clip.tokenizer import SimpleTokenizer

    from embedded_world.recipes.clip import PRESETS, text_config

    for name, preset in PRESETS.items():
        folder = embedded / preset.folder
        record = json.loads((folder / "recipe.json").read_text())
        assert record["command"] == preset.command(name)
        assert record["steps"] == preset.steps
        shipped = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
        vocabulary = SimpleTokenizer(str(folder / BPE_FILE)).vocab_size
        assert shipped == {
            "embed_dim": preset.tower.embed,
            "vision_cfg": preset.tower.vision,
            "text_cfg": text_config(vocabulary, preset),
        }


def test_the_small_clip_is_another_backbone(
    encoder: OpenClipEncoder, small_encoder: OpenClipEncoder
) -> None:
    """Another fingerprint keeps tables apart, another dimension makes a mix-up fail loudly."""
    assert small_encoder.fingerprint != encoder.fingerprint
    assert small_encoder.encode_texts(["a red circle"]).shape == (1, 96)
    assert encoder.encode_texts(["a red circle"]).shape == (1, 128)


@pytest.mark.parametrize("name", ["clip", "clip_small"])
def test_shipped_merges_are_the_languages(embedded: Path, name: str, tmp_path: Path) -> None:
    shipped = gzip.decompress((embedded / name / BPE_FILE).read_bytes())
    assert shipped == gzip.decompress(write_merges(tmp_path).read_bytes())


@pytest.mark.parametrize(("name", "loaded"), [("clip", "encoder"), ("clip_small", "small_encoder")])
def test_clips_pass_reduced_gates_and_reach_what_their_recipes_say(
    embedded: Path, name: str, loaded: str, request: pytest.FixtureRequest
) -> None:
    """Fewer candidates are easier, so a fifth of them must not find less than all did."""
    from embedded_world.recipes.vision_measures import clip_measures

    record = json.loads((embedded / name / "recipe.json").read_text())
    recorded = {row["name"]: row["share"] for row in record["gates"]["measures"]}
    measures = clip_measures(request.getfixturevalue(loaded), 200)
    assert {m.name for m in measures} == recorded.keys()
    assert [m.name for m in measures if m.share < recorded[m.name] - SLACK] == []
    gated = [m for m in measures if m.gate is not None]
    assert [m.name for m in gated if m.share < m.gate - SLACK] == []
    assert len(gated) == 2


def test_captioner_passes_reduced_gates(captioner: ShippedBlip2) -> None:
    from embedded_world.recipes.vision_measures import blip2_measures

    gated = [m for m in blip2_measures(captioner, 200, 20, 10) if m.gate is not None]
    assert [m.name for m in gated if m.share < m.gate - SLACK] == []
    assert len(gated) == 7


def test_captioner_prompts_like_the_library(embedded: Path, captioner: ShippedBlip2) -> None:
    """With and without an (empty) text, the processor makes the prompt of training."""
    import torch
    from transformers import Blip2Processor

    from embedded_world.recipes.blip2 import QUERIES

    processor = Blip2Processor.from_pretrained(embedded / "blip2")
    picture = draw(sample_scenes(Random(0), 1, held_out=True)[0], 0)
    prompt = processor(images=picture, text="", return_tensors="pt")
    image, start = captioner.model.config.image_token_index, processor.tokenizer.bos_token_id
    assert prompt["input_ids"].tolist() == [[image] * QUERIES + [start]]
    with torch.no_grad():
        with_text = captioner.model.generate(**prompt, max_new_tokens=30, do_sample=False)
        without = captioner.model.generate(
            pixel_values=prompt["pixel_values"], max_new_tokens=30, do_sample=False
        )
    assert torch.equal(with_text, without)


@pytest.fixture(scope="module")
def llava(embedded: Path) -> ShippedLlava:
    """The shipped LLaVA."""
    from embedded_world.recipes.shipped_captioners import ShippedLlava

    return ShippedLlava(embedded / "llava")


def test_llava_passes_reduced_gates(llava: ShippedLlava) -> None:
    from embedded_world.recipes.vision_measures import llava_measures

    gated = [m for m in llava_measures(llava, 200) if m.gate is not None]
    assert [m.name for m in gated if m.share < m.gate - SLACK] == []
    assert len(gated) == 6


def test_llava_has_the_published_layout_and_loads_whole(embedded: Path) -> None:
    """vLLM knows LLaVA's weights by the names of the published checkpoints only."""
    import torch
    from safetensors import safe_open
    from transformers import LlavaForConditionalGeneration

    with safe_open(embedded / "llava" / "model.safetensors", "pt") as file:
        names = set(file.keys())
    starts = {".".join(name.split(".")[:2]) for name in names}
    assert starts == {
        "vision_tower.vision_model",
        "multi_modal_projector.linear_1",
        "multi_modal_projector.linear_2",
        "language_model.model",
    }
    model, report = LlavaForConditionalGeneration.from_pretrained(
        embedded / "llava", output_loading_info=True
    )
    assert not report["missing_keys"] | report["unexpected_keys"] | report["mismatched_keys"]
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert (model.config.vision_feature_layer, model.config.text_config.head_dim) == (-2, 32)


def test_llava_prompts_as_in_training(embedded: Path, llava: ShippedLlava) -> None:
    """Whichever way the chat becomes tokens: in one go, or the text first."""
    from transformers import AutoProcessor

    from embedded_world.recipes.llava import prompt_tokens

    processor = AutoProcessor.from_pretrained(embedded / "llava")
    picture = draw(sample_scenes(Random(0), 1, held_out=True)[0], 0)
    trained = prompt_tokens(processor)
    assert trained.count(llava.model.config.image_token_id) == 36
    assert processor.tokenizer.unk_token_id not in trained
    assert processor.tokenizer.bos_token_id == trained[0] != trained[1]
    assert processor(images=picture, text=llava.chat)["input_ids"] == [trained]
    question = llava.chat.split("\n")[1].removesuffix(" ASSISTANT:")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    at_once = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert at_once["input_ids"].tolist() == [trained]
    assert processor.tokenizer.padding_side == "left"


@pytest.mark.parametrize("torchvision", [True, False])
def test_llava_sees_the_pixels_of_training(embedded: Path, torchvision: bool) -> None:
    """With torchvision and without."""
    import torch
    from transformers import CLIPImageProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from embedded_world.recipes.scene_tensors import to_tensor

    kind = CLIPImageProcessor if torchvision else CLIPImageProcessorPil
    picture = draw(sample_scenes(Random(0), 1, held_out=True)[0], 0)
    images = kind.from_pretrained(embedded / "llava")
    seen = torch.as_tensor(images(images=[picture], return_tensors="pt")["pixel_values"])
    assert torch.allclose(seen, to_tensor(np.array(picture)[None]), atol=1e-6)


def test_pseudo_tokens_beat_the_image_alone(embedded: Path, encoder: OpenClipEncoder) -> None:
    from embedded_world.recipes.composed_probe import run_probe
    from models.textual_inversion.network import load_mapping

    results = run_probe(encoder, load_mapping(embedded / "lincir"), 100)
    assert results["LinCIR"]["R@10"] > results["image only"]["R@10"]
    assert results["LinCIR"]["R@10"] > results["text only"]["R@10"]
