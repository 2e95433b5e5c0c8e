"""The BLIP-2 captioner against the library's own generate, and its independence from batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.captioners.blip2 import Blip2Captioner, Blip2Settings
from models.protocols import Captioner, CaptionSampling

NUCLEUS = CaptionSampling(n=15, top_p=0.9, max_new_tokens=12, seed=3)
GREEDY = CaptionSampling(n=1, mode="greedy", max_new_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.fakes.checkpoints import save_blip2

    return save_blip2(tmp_path_factory.mktemp("blip2"))


@pytest.fixture(scope="module")
def captioner(folder: Path) -> Blip2Captioner:
    return load(folder, batch_size=16)


def load(folder: Path, batch_size: int) -> Blip2Captioner:
    return settings(folder, batch_size).load()


def settings(folder: Path, batch_size: int = 16) -> Blip2Settings:
    return Blip2Settings(model=str(folder), device="cpu", dtype="fp32", batch_size=batch_size)


def noise_images(count: int) -> list[tuple[str, Image.Image]]:
    rng = np.random.default_rng(0)
    return [
        (f"img{i}", Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)))
        for i in range(count)
    ]


def test_fulfils_the_protocol(captioner: Blip2Captioner) -> None:
    assert isinstance(captioner, Captioner)


@pytest.mark.parametrize("prompt", ["", "a small"])
def test_greedy_equals_the_library(captioner: Blip2Captioner, folder: Path, prompt: str) -> None:
    import torch
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    from tests.fakes.checkpoints import NUM_QUERIES

    images = noise_images(6)
    model = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(
        images=[image for _, image in images],
        text=[prompt] * len(images) if prompt else None,
        return_tensors="pt",
    )
    prefix_length = inputs["input_ids"].shape[1] if prompt else NUM_QUERIES + 1
    with torch.inference_mode():
        out = model.generate(**inputs, do_sample=False, max_new_tokens=12, min_new_tokens=1)
    expected = processor.tokenizer.batch_decode(out[:, prefix_length:], skip_special_tokens=True)

    replies = list(captioner.caption(images, replace(GREEDY, prompt=prompt)))
    assert [reply.captions for reply in replies] == [(text.strip(),) for text in expected]
    assert len({reply.captions for reply in replies}) > 1, "the image is ignored"


def test_captions_do_not_depend_on_the_batch(folder: Path, captioner: Blip2Captioner) -> None:
    images = noise_images(16)
    together = list(captioner.caption(images, NUCLEUS))
    alone = list(load(folder, batch_size=1).caption(images, NUCLEUS))
    shuffled = list(load(folder, batch_size=5).caption(images[::-1], NUCLEUS))[::-1]
    assert all(reply.status == "ok" and len(reply.captions) == 15 for reply in together)
    assert together == alone == shuffled
    assert len({caption for reply in together for caption in reply.captions}) > 100


def test_the_first_samples_of_many_are_the_samples_of_few(captioner: Blip2Captioner) -> None:
    images = noise_images(3)
    many = list(captioner.caption(images, NUCLEUS))
    few = list(captioner.caption(images, replace(NUCLEUS, n=4)))
    assert [reply.captions[:4] for reply in many] == [reply.captions for reply in few]


def test_key_and_seed_choose_the_stream(captioner: Blip2Captioner) -> None:
    image = noise_images(1)[0][1]
    first, second = captioner.caption([("a", image), ("b", image)], NUCLEUS)
    (reseeded,) = captioner.caption([("a", image)], replace(NUCLEUS, seed=4))
    assert first.captions != second.captions
    assert first.captions != reseeded.captions


def test_captions_follow_the_model_distribution(captioner: Blip2Captioner, folder: Path) -> None:
    """First tokens of 3,000 draws against the softmax of the library's own forward pass."""
    import torch
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    from tests.fakes.checkpoints import NUM_QUERIES

    key, image = noise_images(1)[0]
    count = 3000
    sampling = CaptionSampling(n=count, top_p=1.0, max_new_tokens=1, seed=1)
    model = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    pixels = processor(images=image, return_tensors="pt")["pixel_values"]
    prefix = torch.tensor([[3] * NUM_QUERIES + [1]])
    with torch.no_grad():
        logits = model(pixel_values=pixels, input_ids=prefix).logits[0, -1]
    logits[2] = float("-inf")  # a caption has at least one token
    probabilities = logits.softmax(0)
    visible = [t for t in range(len(logits)) if t >= 5]
    # One level below `caption`, which refuses the draws of special tokens: they have no text.
    (captions,) = captioner._caption_batch([(key, image)], sampling, captioner._prefix(""))
    words = processor.tokenizer.convert_ids_to_tokens(visible)
    observed = torch.tensor([captions.count(word) for word in words], dtype=torch.float)
    expected = probabilities[visible] / probabilities[visible].sum() * observed.sum()
    common = expected > 5
    statistic = (((observed - expected) ** 2 / expected)[common]).sum()
    assert statistic < common.sum() + 5 * (2 * common.sum()).sqrt()


def test_vision_and_prefix_run_once_per_image(
    captioner: Blip2Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[tuple[int, int]] = []
    decoder = captioner._model.language_model
    vision = captioner._model.vision_model
    seen_images = []
    handles = [
        vision.register_forward_hook(
            lambda m, a, k, out: seen_images.append(k["pixel_values"].shape[0]), with_kwargs=True
        ),
        decoder.register_forward_hook(
            lambda m, a, k, out: rows.append(tuple(out.logits.shape[:2])), with_kwargs=True
        ),
    ]
    list(captioner.caption(noise_images(2), NUCLEUS))
    for handle in handles:
        handle.remove()
    assert seen_images == [2]
    assert rows[0] == (2, 1)
    assert rows[1][0] <= 30
    assert len(rows) <= NUCLEUS.max_new_tokens


class Unreadable:
    """Looks like an image until somebody reads its pixels."""

    def __init__(self) -> None:
        self.mode, self.size = "RGB", (4, 4)

    def convert(self, mode: str) -> Unreadable:
        raise OSError("image file is truncated")


def test_a_failing_image_does_not_harm_its_neighbours(captioner: Blip2Captioner) -> None:
    images = noise_images(7)
    broken = [*images[:3], ("broken", Unreadable()), *images[3:]]
    replies = list(captioner.caption(broken, NUCLEUS))
    assert [reply.key for reply in replies] == [key for key, _ in broken]
    assert replies[3].status == "engine_error"
    assert replies[3].reason
    assert replies[3].captions == ()
    assert replies[:3] + replies[4:] == list(captioner.caption(images, NUCLEUS))


def test_memory_exhaustion_halves_the_batch(
    captioner: Blip2Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    images = noise_images(8)
    expected = list(captioner.caption(images, NUCLEUS))
    sizes: list[int] = []
    real = Blip2Captioner._caption_batch

    def limited(self, batch, sampling, prefix):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, batch, sampling, prefix)

    monkeypatch.setattr(Blip2Captioner, "_caption_batch", limited)
    assert list(captioner.caption(images, NUCLEUS)) == expected
    assert sizes == [8, 4, 2, 2, 4, 2, 2]


def test_images_are_streamed(folder: Path) -> None:
    taken: list[str] = []

    def images():
        for key, image in noise_images(9):
            taken.append(key)
            yield key, image

    replies = load(folder, batch_size=2).caption(images(), GREEDY)
    next(replies)
    assert len(taken) == 2


def test_beam_sample_is_seeded_per_image(folder: Path, captioner: Blip2Captioner) -> None:
    import torch

    sampling = CaptionSampling(n=3, mode="beam_sample", max_new_tokens=6, seed=1)
    images = noise_images(3)
    together = list(captioner.caption(images, sampling))
    state = torch.random.get_rng_state()
    alone = list(load(folder, batch_size=1).caption(images, sampling))
    assert together == alone
    assert torch.equal(state, torch.random.get_rng_state()), "the global generator was touched"
    assert all(len(reply.captions) == 3 for reply in together if reply.status == "ok")


def test_a_processor_without_placeholders_is_refused(tmp_path: Path) -> None:
    """Such a processor describes nothing, and the model raises nothing."""
    from tests.fakes.checkpoints import save_blip2

    broken = load(save_blip2(tmp_path, placeholders=None), batch_size=1)
    with pytest.raises(ValueError, match=r"0 image placeholders.*8 queries.*num_query_tokens"):
        list(broken.caption(noise_images(1), replace(GREEDY, prompt="a small")))


def test_fingerprint_follows_the_contents_not_the_place(tmp_path: Path) -> None:
    from tests.fakes.checkpoints import save_blip2

    first = settings(save_blip2(tmp_path / "a"), batch_size=1).fingerprint
    same = settings(save_blip2(tmp_path / "b"), batch_size=9).fingerprint
    other = settings(save_blip2(tmp_path / "c", seed=1), batch_size=1).fingerprint
    assert first == same
    assert first["files"]["model.safetensors"] != other["files"]["model.safetensors"]
    assert str(tmp_path) not in str(first)


def test_a_hub_id_is_fetched_whole_before_it_is_identified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.captioners.blip2 import Blip2Captioner, Blip2Settings
    from tests.fakes.checkpoints import save_blip2

    hub, fetched = tmp_path / "hub", []
    repository = hub / "models--org--blip2"

    def fetch(captioner: Blip2Captioner) -> None:
        fetched.append(captioner)
        save_blip2(repository / "snapshots" / "abc")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("abc")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(Blip2Captioner, "fetch", fetch)
    monkeypatch.setattr("models.hub.hub_fault", lambda: "")
    settings = Blip2Settings(model="org/blip2", device="cpu")
    first, again = settings.fingerprint, settings.fingerprint
    assert first == again
    assert len(fetched) == 1
    assert first["model"] == "org/blip2"
    assert {"model.safetensors", "processor_config.json", "tokenizer.json"} <= set(first["files"])
