"""Presets of captions: what LAVIS asks of transformers for the papers' captions, word for word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.profiles import ProfileError, resolve_profile
from models.captioners.seeds import stream_seed
from models.retrieval.methods import METHODS
from tasks.settings import Profile
from tests.fakes.checkpoints import save_blip2

LAVIS = {"do_sample": True, "top_p": 0.9, "temperature": 1.0, "top_k": 50}


def production(**changed: Any) -> Profile:
    return resolve_profile("production", changed)


@pytest.mark.parametrize("t5", [False, True])
def test_productions_captions_are_those_that_lavis_asks_for(tmp_path: Path, t5: bool) -> None:
    """The library is asked by itself, with LAVIS's arguments and the same generator state."""
    import torch
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    folder = save_blip2(tmp_path, t5=t5)
    profile = production(
        **{"captioner.model": str(folder), "captioner.device": "cpu", "cvsi.captions_per_image": 4}
    )
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    model = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=image, text="a photo of", return_tensors="pt")
    ensemble = {**LAVIS, "num_beams": 4, "num_return_sequences": 4}
    single = {"do_sample": False, "num_beams": 5}
    for sampling, options in ((profile.ensemble, ensemble), (profile.single, single)):
        (reply,) = profile.captioner.load().caption([("key", image)], sampling)
        torch.manual_seed(stream_seed(sampling.mode, 0, "key") & (2**63 - 1))
        out = model.generate(**inputs, **options, max_new_tokens=30, min_new_tokens=1)
        own = out if t5 else out[:, inputs["input_ids"].shape[1] :]
        expected = processor.tokenizer.batch_decode(own, skip_special_tokens=True)
        assert reply.captions == tuple(text.strip() for text in expected)


def test_presets_by_name() -> None:
    lavis = {"top_p": 0.9, "temperature": 1.0, "max_new_tokens": 30, "prompt": "a photo of"}
    shown = {
        "lavis-nucleus": {**lavis, "n": 15, "mode": "beam_sample", "top_k": 50, "seed": 0},
        "lavis-1.0-nucleus": {**lavis, "n": 15, "mode": "nucleus", "top_k": 50, "seed": 0},
    }
    for name, expected in shown.items():
        own = production(**{"cvsi.caption_sampling": name, "captions.top_p": 0.5})
        assert own.ensemble.fingerprint == expected
    single = production(single_caption="lavis-beam5").single
    assert single.fingerprint == {**lavis, "n": 1, "mode": "beam", "beams": 5, "seed": 0}
    assert production().ensemble.fingerprint == shown["lavis-nucleus"]
    assert production().single == single
    assert METHODS["cvsi-code"].settings.caption_sampling == "lavis-nucleus"
    assert METHODS["ldre-code"].settings.caption_sampling == "lavis-1.0-nucleus"
    instructed = production(**{"captions.prompt": "describe it", "captions.max_new_tokens": 60})
    assert (instructed.single.prompt, instructed.single.max_new_tokens) == ("describe it", 60)


def test_what_a_profile_says_itself_stays_as_it_was() -> None:
    """Captions of earlier versions keep their keys where their settings are named."""
    plain = {"n": 15, "top_p": 0.9, "temperature": 1.0, "max_new_tokens": 30, "mode": "nucleus",
             "seed": 0, "prompt": ""}  # fmt: skip
    named = production(**{"cvsi.caption_sampling": "nucleus", "single_caption": "greedy"})
    other = production(**{"captioner.engine": "llava"})
    for profile in (named, other):
        assert profile.ensemble.fingerprint == plain
        assert profile.single.fingerprint == {**plain, "n": 1, "mode": "greedy"}
    assert resolve_profile("tiny").ensemble.fingerprint == {**plain, "n": 2}


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ProfileError, match=r"cvsi\.caption_sampling.*'lavis-nucleus'"):
        production(**{"cvsi.caption_sampling": "lavis"})
    with pytest.raises(ProfileError, match=r"single_caption: .*'lavis-beam5'.*not 'beam'"):
        production(single_caption="beam")
