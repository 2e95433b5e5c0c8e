"""The shipped models load through their libraries and are as good as their cards say."""

import gzip
import json
from pathlib import Path
from random import Random

import numpy as np
import open_clip
import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoProcessor,
    Blip2Processor,
    CLIPImageProcessor,
    LlavaForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from flows.recipes.captioner import QUERIES
from flows.recipes.clip_tokenizer import BPE_FILE, write_merges
from flows.recipes.composed_probe import run_probe
from flows.recipes.llava import llava_tokenizer, prompt_tokens
from flows.recipes.pictures import to_tensor
from flows.recipes.vision_measures import (
    Captioner,
    LlavaCaptioner,
    captioner_measures,
    clip_measures,
    llava_measures,
)
from models.mapping import load_mapping
from models.open_clip_encoder import OpenClipEncoder
from models.open_clip_loading import EncoderSpec, load_encoder
from storage.world.drawing import draw
from storage.world.scenes import sample_scenes

SLACK = 0.03
"""Reduced samples may fall this far below a gate without the model being worse."""


@pytest.fixture(scope="module")
def embedded(repository: Path) -> Path:
    """Folder of the shipped models."""
    return repository / "models" / "embedded"


@pytest.fixture(scope="module")
def encoder(embedded: Path) -> OpenClipEncoder:
    """The shipped CLIP."""
    return load_encoder(EncoderSpec(str(embedded / "clip"), device="cpu"))


@pytest.fixture(scope="module")
def captioner(embedded: Path) -> Captioner:
    """The shipped BLIP-2."""
    return Captioner(embedded / "blip2")


@pytest.mark.parametrize("name", ["clip", "blip2", "llava", "lincir"])
def test_weights_are_small_and_half_precision(embedded: Path, name: str) -> None:
    (weights,) = (embedded / name).glob("*.safetensors")
    assert weights.stat().st_size < 4_000_000
    with safe_open(weights, "pt") as file:
        types = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    assert types <= {"F16", "I64"}


@pytest.mark.parametrize("name", ["clip", "blip2", "llava", "lincir"])
def test_recipe_says_how_it_was_made(embedded: Path, name: str) -> None:
    record = json.loads((embedded / name / "recipe.json").read_text())
    assert record["command"].startswith("OMP_NUM_THREADS=1 python -m flows.recipes.")
    assert record["steps"] > 0
    assert record["cpu_seconds"] > 0
    assert "torch" in record["libraries"]
    assert record["gates"]
    assert (embedded / name / "README.md").is_file()


def test_clip_loads_by_open_clip_alone_and_equals_the_encoder(
    embedded: Path, encoder: OpenClipEncoder
) -> None:
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{embedded / 'clip'}")
    picture = draw(sample_scenes(Random(0), 1, held_out=True)[0], 0)
    with torch.no_grad():
        theirs = model.eval().encode_image(preprocess(picture)[None])[0]
    assert torch.allclose(theirs, torch.from_numpy(encoder.encode_images([picture])[0]), atol=1e-5)


def test_shipped_merges_are_the_languages(embedded: Path, tmp_path: Path) -> None:
    shipped = gzip.decompress((embedded / "clip" / BPE_FILE).read_bytes())
    assert shipped == gzip.decompress(write_merges(tmp_path).read_bytes())


def test_clip_passes_reduced_gates(encoder: OpenClipEncoder) -> None:
    gated = [m for m in clip_measures(encoder, 200) if m.gate is not None]
    assert [m.name for m in gated if m.share < m.gate - SLACK] == []
    assert len(gated) == 2


def test_captioner_passes_reduced_gates(captioner: Captioner) -> None:
    gated = [m for m in captioner_measures(captioner, 200, 20, 10) if m.gate is not None]
    assert [m.name for m in gated if m.share < m.gate - SLACK] == []
    assert len(gated) == 7


def test_captioner_prompts_like_the_library(embedded: Path, captioner: Captioner) -> None:
    """With and without an (empty) text, the processor makes the prompt of training."""
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
def llava(embedded: Path) -> LlavaCaptioner:
    """The shipped LLaVA."""
    return LlavaCaptioner(embedded / "llava")


def test_llava_passes_reduced_gates(llava: LlavaCaptioner) -> None:
    gated = [m for m in llava_measures(llava, 200) if m.gate is not None]
    assert [m.name for m in gated if m.share < m.gate - SLACK] == []
    assert len(gated) == 6


def test_llava_has_the_published_layout_and_loads_whole(embedded: Path) -> None:
    """vLLM knows LLaVA's weights by the names of the published checkpoints only."""
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


def test_llava_prompts_as_in_training(embedded: Path, llava: LlavaCaptioner) -> None:
    """Whichever way the chat becomes tokens: in one go, or the text first."""
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
    shipped, built = processor.tokenizer.get_vocab(), llava_tokenizer().get_vocab()
    assert shipped == built


@pytest.mark.parametrize("kind", [CLIPImageProcessor, CLIPImageProcessorPil])
def test_llava_sees_the_pixels_of_training(
    embedded: Path, kind: type[CLIPImageProcessor | CLIPImageProcessorPil]
) -> None:
    """With torchvision and without."""
    picture = draw(sample_scenes(Random(0), 1, held_out=True)[0], 0)
    images = kind.from_pretrained(embedded / "llava")
    seen = torch.as_tensor(images(images=[picture], return_tensors="pt")["pixel_values"])
    assert torch.allclose(seen, to_tensor(np.array(picture)[None]), atol=1e-6)


def test_pseudo_tokens_beat_the_image_alone(embedded: Path, encoder: OpenClipEncoder) -> None:
    results = run_probe(encoder, load_mapping(embedded / "lincir"), 100)
    assert results["LinCIR"]["R@10"] > results["image only"]["R@10"]
    assert results["LinCIR"]["R@10"] > results["text only"]["R@10"]
