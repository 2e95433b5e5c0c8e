"""BLIP-2's ways of decoding, with OPT and with T5, against transformers' own `generate`."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.captioners.blip2 import Blip2Captioner, Blip2Settings
from models.captioners.seeds import stream_seed
from models.protocols import CaptionSampling

LENGTH = 12
SAMPLED = CaptionSampling(n=4, top_p=0.9, max_new_tokens=LENGTH, seed=3, top_k=7)
FORMS = ("opt", "t5")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tests.fakes.checkpoints import save_blip2

    return {form: save_blip2(tmp_path_factory.mktemp(form), t5=form == "t5") for form in FORMS}


def captioner(folder: Path, batch_size: int = 3) -> Blip2Captioner:
    return Blip2Settings(
        model=str(folder), device="cpu", dtype="fp32", batch_size=batch_size
    ).load()


def pictures(count: int) -> list[tuple[str, Image.Image]]:
    random = np.random.default_rng(0)
    return [
        (f"img{i}", Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)))
        for i in range(count)
    ]


@functools.cache
def library(folder: Path) -> tuple[Any, Any]:
    """The library's own model and processor; tests only read them."""
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    model = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    return model, AutoProcessor.from_pretrained(folder)


def generated(
    folder: Path, image: Image.Image, prompt: str, seed: int | None = None, **options: Any
) -> list[str]:
    """Captions by the library alone: processor, `generate` of the whole model, its tokenizer."""
    import torch

    model, processor = library(folder)
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    if seed is not None:
        torch.manual_seed(seed)
    out = model.generate(**inputs, max_new_tokens=LENGTH, min_new_tokens=1, **options)
    if not model.config.text_config.is_encoder_decoder:  # the prompt comes before the caption
        out = out[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.tokenizer.batch_decode(out, True)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prompt", ["a small", "star"])
@pytest.mark.parametrize(
    ("sampling", "options"),
    [
        (CaptionSampling(n=1, mode="greedy"), {"do_sample": False}),
        (CaptionSampling(n=1, mode="beam", beams=5), {"do_sample": False, "num_beams": 5}),
        (
            CaptionSampling(n=3, mode="beam", beams=4),
            {"do_sample": False, "num_beams": 4, "num_return_sequences": 3},
        ),
    ],
)
def test_captions_without_chance_are_the_librarys(
    folders: dict[str, Path],
    form: str,
    prompt: str,
    sampling: CaptionSampling,
    options: dict[str, Any],
) -> None:
    asked = replace(sampling, max_new_tokens=LENGTH, prompt=prompt)
    images = pictures(4)
    replies = list(captioner(folders[form]).caption(images, asked))
    expected = [tuple(generated(folders[form], image, prompt, **options)) for _, image in images]
    assert [reply.captions for reply in replies] == expected
    assert len(set(expected)) > 1, "the image is ignored"


@pytest.mark.parametrize(("form", "mode"), [("opt", "beam_sample"), ("t5", "beam_sample"),
                                            ("t5", "nucleus")])  # fmt: skip
def test_drawn_captions_are_the_librarys_from_the_same_generator_state(
    folders: dict[str, Path], form: str, mode: Any
) -> None:
    """Beams of LAVIS, `top_k` included; T5 is drawn from by the library in every mode."""
    import torch

    asked = replace(SAMPLED, mode=mode, prompt="a small")
    images = pictures(4)
    state = torch.random.get_rng_state()
    replies = list(captioner(folders[form]).caption(images, asked))
    assert torch.equal(state, torch.random.get_rng_state()), "the global generator was touched"
    expected = []
    for key, image in images:
        options = {"do_sample": True, "top_p": 0.9, "top_k": 7, "num_return_sequences": 4}
        beams = {"num_beams": 4} if mode == "beam_sample" else {}
        seed = stream_seed(mode, 3, key) & (2**63 - 1)
        expected.append(tuple(generated(folders[form], image, "a small", seed, **options, **beams)))
    assert [reply.captions for reply in replies] == expected
    one_by_one = list(captioner(folders[form], batch_size=1).caption(images, asked))
    assert one_by_one == replies


def test_t5_without_a_prompt_reads_the_image_and_an_end_token(folders: dict[str, Path]) -> None:
    asked = CaptionSampling(n=1, mode="greedy", max_new_tokens=LENGTH)
    images = pictures(4)
    replies = list(captioner(folders["t5"]).caption(images, asked))
    expected = [tuple(generated(folders["t5"], image, "", do_sample=False)) for _, image in images]
    assert [reply.captions for reply in replies] == expected


def test_the_nucleus_is_taken_from_the_likeliest_tokens_as_the_library_does() -> None:
    import torch
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    from models.captioners.sampling import keep_likeliest, keep_nucleus

    logits = torch.randn(9, 60, generator=torch.Generator().manual_seed(0)).double() * 2
    for top_k in (1, 5, 50):
        expected = TemperatureLogitsWarper(0.8)(None, logits)
        for warper in (TopKLogitsWarper(top_k), TopPLogitsWarper(0.9)):
            expected = warper(None, expected)
        got = keep_nucleus(keep_likeliest(logits / 0.8, top_k), 0.9)
        torch.testing.assert_close(got, expected)
    assert torch.equal(keep_likeliest(logits, 0), logits)


def test_opt_draws_from_the_likeliest_tokens_alone(folders: dict[str, Path]) -> None:
    """With `top_k` 1 every sample is the greedy caption; without it, samples differ."""
    one = captioner(folders["opt"])
    (greedy,) = one.caption(pictures(1), CaptionSampling(n=1, mode="greedy", max_new_tokens=6))
    for top_k, distinct in ((1, 1), (0, 4)):
        (drawn,) = one.caption(pictures(1), replace(SAMPLED, top_k=top_k, max_new_tokens=6))
        assert len(set(drawn.captions)) == distinct
        assert (drawn.captions[0] == greedy.captions[0]) == (top_k == 1)


def test_unused_values_of_a_sampling_are_no_part_of_its_identity() -> None:
    """So that captions of earlier versions keep their keys."""
    nucleus = CaptionSampling(n=2, seed=1)
    assert nucleus.fingerprint == {
        "n": 2, "top_p": 0.9, "temperature": 1.0, "max_new_tokens": 30, "mode": "nucleus",
        "seed": 1, "prompt": "",
    }  # fmt: skip
    assert replace(nucleus, beams=9).fingerprint == nucleus.fingerprint
    assert replace(nucleus, top_k=50).fingerprint == {**nucleus.fingerprint, "top_k": 50}
    beam = replace(nucleus, mode="beam")
    assert beam.fingerprint == {**nucleus.fingerprint, "mode": "beam", "beams": 5}
    for broken in ({"mode": "beam", "beams": 1}, {"top_k": -1}):
        with pytest.raises(ValueError, match="breaks"):
            replace(nucleus, **broken)
