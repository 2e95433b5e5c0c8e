"""The LLaVA captioner against the library's own generate, and its independence from batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from embedded_world.drawing import draw
from embedded_world.scenes import sample_scenes
from models.captioners.chat import DEFAULT_PROMPT
from models.captioners.llava import LlavaCaptioner, LlavaSettings
from models.protocols import Captioner, CaptionSampling
from tests.fakes.plain_chat import chat_inputs

NUCLEUS = CaptionSampling(n=6, top_p=0.9, max_new_tokens=12, seed=3)
GREEDY = CaptionSampling(n=1, mode="greedy", max_new_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.fakes.checkpoints import save_llava

    return save_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def shipped(repository: Path) -> Path:
    return repository / "models" / "embedded" / "llava"


@pytest.fixture(scope="module")
def captioner(folder: Path) -> LlavaCaptioner:
    return load(folder, batch_size=16)


def load(folder: Path, batch_size: int = 16) -> LlavaCaptioner:
    return settings(folder, batch_size).load()


def settings(folder: Path, batch_size: int = 16) -> LlavaSettings:
    return LlavaSettings(model=str(folder), device="cpu", dtype="fp32", batch_size=batch_size)


def noise_images(count: int) -> list[tuple[str, Image.Image]]:
    """Noise of many sizes, wide and tall."""
    rng = np.random.default_rng(0)
    sizes = [(40 + 7 * i, 50 + 31 * (i % 4), 3) for i in range(count)]
    return [
        (f"img{i}", Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)))
        for i, size in enumerate(sizes)
    ]


def by_the_library(
    folder: Path, images: list[Image.Image], prompt: str, max_new_tokens: int
) -> list[str]:
    """Captions by the processor's own chat interface and `generate`, one image at a time."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    texts = []
    for image in images:
        content = [{"type": "image", "image": image}, {"type": "text", "text": prompt}]
        inputs = chat_inputs(processor, content)
        with torch.inference_mode():
            out = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
        new = out[0, inputs["input_ids"].shape[1] :]
        texts.append(processor.decode(new, skip_special_tokens=True).strip())
    return texts


def test_fulfils_the_protocol(captioner: LlavaCaptioner) -> None:
    assert isinstance(captioner, Captioner)


@pytest.mark.parametrize("prompt", ["", "make it blue"])
def test_greedy_equals_the_library(captioner: LlavaCaptioner, folder: Path, prompt: str) -> None:
    images = noise_images(6)
    asked = prompt or DEFAULT_PROMPT.template
    expected = by_the_library(folder, [image for _, image in images], asked, 12)
    replies = list(captioner.caption(images, replace(GREEDY, prompt=prompt)))
    assert [reply.captions for reply in replies] == [(text,) for text in expected]
    assert len({reply.captions for reply in replies}) > 1, "the image is ignored"


def test_the_shipped_model_says_what_the_library_says(shipped: Path) -> None:
    scenes = sample_scenes(Random(5), 12, held_out=True)
    images = [draw(scene, i) for i, scene in enumerate(scenes)]
    keyed = [(str(i), image) for i, image in enumerate(images)]
    sampling = CaptionSampling(n=1, mode="greedy", max_new_tokens=128)
    replies = list(load(shipped, batch_size=5).caption(keyed, sampling))
    expected = by_the_library(shipped, images, DEFAULT_PROMPT.template, 128)
    assert [reply.captions for reply in replies] == [(text,) for text in expected]


@pytest.mark.parametrize("sampling", [GREEDY, NUCLEUS], ids=lambda s: s.mode)
def test_captions_do_not_depend_on_the_batch(
    folder: Path, captioner: LlavaCaptioner, sampling: CaptionSampling
) -> None:
    images = noise_images(16)
    together = list(captioner.caption(images, sampling))
    alone = list(load(folder, batch_size=1).caption(images, sampling))
    shuffled = list(load(folder, batch_size=5).caption(images[::-1], sampling))[::-1]
    assert together == alone == shuffled
    assert sum(len(reply.captions) == sampling.n for reply in together) > 8
    assert len({caption for reply in together for caption in reply.captions}) > sampling.n


def test_the_first_samples_of_many_are_the_samples_of_few(captioner: LlavaCaptioner) -> None:
    images = noise_images(3)
    many = list(captioner.caption(images, NUCLEUS))
    few = list(captioner.caption(images, replace(NUCLEUS, n=2)))
    for some, all_of_them in zip(few, many, strict=True):
        assert some.captions == all_of_them.captions[:2]


def test_captions_stop_at_the_limit(captioner: LlavaCaptioner) -> None:
    long = list(captioner.caption(noise_images(4), replace(GREEDY, max_new_tokens=12)))
    short = list(captioner.caption(noise_images(4), replace(GREEDY, max_new_tokens=3)))
    assert all(len(reply.captions[0].split()) <= 3 for reply in short)
    assert any(len(reply.captions[0].split()) > 3 for reply in long)


def test_beam_sampling_gives_n_captions(captioner: LlavaCaptioner) -> None:
    sampling = CaptionSampling(n=3, mode="beam_sample", max_new_tokens=6, seed=1)
    images = noise_images(2)
    replies = list(captioner.caption(images, sampling))
    assert replies == list(captioner.caption(images, sampling))
    assert all(len(reply.captions) == 3 for reply in replies if reply.status == "ok")


class Unreadable:
    """Looks like an image until somebody reads its pixels."""

    mode, size = "RGB", (4, 4)

    def convert(self, mode: str) -> Image.Image:
        raise OSError("image file is truncated")


def test_a_failing_image_does_not_harm_its_neighbours(captioner: LlavaCaptioner) -> None:
    images = noise_images(7)
    line = Image.new("RGB", (1, 5000))
    odd = [*images[:3], ("broken", Unreadable()), *images[3:5], ("line", line), *images[5:]]
    replies = {reply.key: reply for reply in captioner.caption(odd, GREEDY)}
    assert replies["broken"].status == replies["line"].status == "engine_error"
    assert replies["broken"].captions == ()
    assert "1x5000" in replies["line"].reason
    good = [replies[key] for key, _ in images]
    assert good == list(captioner.caption(images, GREEDY))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_images_of_every_mode_are_seen(captioner: LlavaCaptioner, mode: str) -> None:
    plain = noise_images(1)[0][1].convert(mode)
    (odd,) = captioner.caption([("k", plain)], GREEDY)
    (same,) = captioner.caption([("k", plain.convert("RGB"))], GREEDY)
    assert odd == same


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_additional_image_tokens": 0}, r"3 placeholders.*4 patch tokens"),
        ({"vision_feature_select_strategy": "full"}, r"5 placeholders.*4 patch tokens"),
        ({"patch_size": None}, r"lacks patch_size.*newer revision"),
        ({"chat_template": None}, r"lacks chat_template"),
        ({"chat_template": "{{ 'USER: ' }}"}, r"holds 0 times <image>"),
    ],
)
def test_a_processor_that_does_not_fit_is_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    from tests.fakes.checkpoints import save_llava

    with pytest.raises(ValueError, match=message):
        list(load(save_llava(tmp_path, **options)).caption(noise_images(1), GREEDY))


def test_a_prompt_that_names_the_placeholder_is_refused(captioner: LlavaCaptioner) -> None:
    with pytest.raises(ValueError, match=r"holds 2 times <image>.*what is in <image>"):
        list(captioner.caption(noise_images(1), replace(GREEDY, prompt="what is in <image>?")))


@pytest.mark.parametrize("changes", [{"prompt": "star " * 200}, {"max_new_tokens": 128}])
def test_what_is_longer_than_the_model_reads_is_refused(
    captioner: LlavaCaptioner, changes: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=r"reads 128; shorten the prompt"):
        list(captioner.caption(noise_images(1), replace(GREEDY, **changes)))


def test_images_are_streamed(folder: Path) -> None:
    taken: list[str] = []

    def images():
        for key, image in noise_images(9):
            taken.append(key)
            yield key, image

    next(load(folder, batch_size=2).caption(images(), GREEDY))
    assert len(taken) == 2


def test_fingerprint_follows_the_contents_and_loads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlavaForConditionalGeneration

    from tests.fakes.checkpoints import save_llava

    places = [save_llava(tmp_path / "a"), save_llava(tmp_path / "b")]
    other = save_llava(tmp_path / "c", seed=1)
    monkeypatch.setattr(LlavaForConditionalGeneration, "from_pretrained", None)
    first, same = (settings(place, batch_size=i + 1).fingerprint for i, place in enumerate(places))
    changed = settings(other).fingerprint
    assert first == same
    assert first["files"]["model.safetensors"] != changed["files"]["model.safetensors"]
    assert first["prompt_sha256"] == DEFAULT_PROMPT.fingerprint["prompt_sha256"]
    assert str(tmp_path) not in str(first)
