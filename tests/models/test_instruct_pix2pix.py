"""The engine InstructPix2Pix on a random checkpoint: plumbing and formulas, no editing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.checkpoints import UnusableCheckpoint
from models.editors.instruct_pix2pix import InstructPix2PixSettings, fitted
from models.protocols import EditRequest
from tests.fakes.pictures import pixels

TEXTS = ("make it red", "add a hat", "two of them")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("diffusers", reason="`make editor` was not run")
    from tests.fakes.tiny_editor import write_editor

    return write_editor(tmp_path_factory.mktemp("editor"))


def settings(folder: Path, **changes: Any) -> InstructPix2PixSettings:
    given = {"steps": 3, "resolution": 64, "device": "cpu", "dtype": "fp32"} | changes
    return InstructPix2PixSettings(model=str(folder), **given)


def requests(*sizes: tuple[int, int]) -> list[EditRequest]:
    return [
        EditRequest(str(n), pixels(n, *size), TEXTS[n % 3], seed=10 + n)
        for n, size in enumerate(sizes)
    ]


def edited(own: InstructPix2PixSettings, asked: list[EditRequest]) -> dict[str, np.ndarray]:
    replies = {reply.key: reply for reply in own.load().edit(asked)}
    assert {reply.status for reply in replies.values()} == {"ok"}
    return {key: np.asarray(reply.picture).astype(int) for key, reply in replies.items()}


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [
        ((640, 480), 512, (512, 384)),
        ((500, 375), 512, (512, 384)),
        ((480, 640), 512, (384, 512)),
        ((512, 512), 512, (512, 512)),
        # 300 x 512 / 400 is 384 exactly; 211 -> 270.08 grows to 320, and 400 to 606, cut to 576.
        ((400, 300), 512, (512, 384)),
        ((400, 211), 512, (576, 320)),
        ((70, 50), 64, (64, 64)),
        ((10_000, 10), 512, (4096, 64)),
    ],
)
def test_sides_are_those_of_the_original_program(
    size: tuple[int, int], resolution: int, expected: tuple[int, int]
) -> None:
    assert fitted(Image.new("RGB", size), resolution).size == expected


def test_a_picture_follows_equation_3_of_the_paper(folder: Path) -> None:
    """The sampler and the guidance written out, one image, no pipeline."""
    import torch
    from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    (request,) = requests((70, 50))
    own = settings(folder, text_guidance=5.0, image_guidance=1.2)
    made = edited(own, [request])["0"]

    unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    sampler = EulerAncestralDiscreteScheduler.from_pretrained(folder / "scheduler")
    noise = torch.Generator().manual_seed(request.seed)

    def read(words: str) -> torch.Tensor:
        ids = tokenizer(words, padding="max_length", max_length=77, return_tensors="pt").input_ids
        return text(ids).last_hidden_state

    with torch.inference_mode():
        image = torch.from_numpy(np.asarray(fitted(request.image, 64))).permute(2, 0, 1)[None]
        shown = vae.encode(image.float() / 127.5 - 1).latent_dist.mode()  # not scaled
        hidden = torch.zeros_like(shown)
        sampler.set_timesteps(own.steps)
        z = torch.randn(shown.shape, generator=noise) * sampler.init_noise_sigma
        for t in sampler.timesteps:
            at = sampler.scale_model_input(z, t)

            def e(seen: torch.Tensor, words: str, at: Any = at, t: Any = t) -> torch.Tensor:
                return unet(torch.cat([at, seen], 1), t, read(words)).sample

            nothing, image_only, both = e(hidden, ""), e(shown, ""), e(shown, request.text)
            eps = nothing + 1.2 * (image_only - nothing) + 5.0 * (both - image_only)
            z = sampler.step(eps, t, z, generator=noise).prev_sample
        decoded = vae.decode(z / vae.config.scaling_factor).sample[0].permute(1, 2, 0)
    expected = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().numpy().astype(int)
    assert np.abs(made - expected).max() <= 1
    assert made.std() > 1


def test_a_picture_depends_on_its_seed_and_text_and_not_on_its_batch(folder: Path) -> None:
    asked = requests((70, 50), (50, 70), (64, 64))
    together = edited(settings(folder), asked)
    alone = edited(settings(folder, batch_size=1), asked)
    for key, made in together.items():
        assert np.abs(made - alone[key]).max() <= 1, key
    first = asked[0]
    others = [
        EditRequest("seed", first.image, first.text, seed=99),
        EditRequest("text", first.image, "another", seed=first.seed),
    ]
    for key, made in edited(settings(folder), others).items():
        assert np.abs(made - together["0"]).max() > 1, key


def test_what_changes_a_picture_changes_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    one = settings(folder).fingerprint
    assert settings(folder, batch_size=9, device="auto").fingerprint == one
    for changed in ({"steps": 4}, {"text_guidance": 2.0}, {"seed": 1}, {"resolution": 128}):
        assert settings(folder, **changed).fingerprint != one
    copied = shutil.copytree(folder, tmp_path / "copy")
    assert settings(copied).fingerprint == one
    (copied / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not read")
    assert settings(copied).fingerprint == one
    merges = copied / "tokenizer" / "merges.txt"
    merges.write_text(merges.read_text() + "a b\n")
    assert settings(copied).fingerprint != one


def test_a_checkpoint_that_lacks_something_is_refused(folder: Path, tmp_path: Path) -> None:
    import safetensors.torch
    import torch

    copied = shutil.copytree(folder, tmp_path / "lacks a weight")
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(weights)
    del tensors["conv_in.weight"]
    safetensors.torch.save_file(tensors, weights)
    with pytest.raises(UnusableCheckpoint, match=r"lacks 1 of the weights \(conv_in.weight\)"):
        list(settings(copied).load().edit(requests((64, 64))))

    whole = safetensors.torch.load_file(folder / "unet" / weights.name)
    whole["conv_in.weight"] = (whole["conv_in.weight"] * 127).to(torch.int8)
    safetensors.torch.save_file(whole, weights)
    with pytest.raises(UnusableCheckpoint, match=r"conv_in.weight \(int8\)"):
        list(settings(copied).load().edit(requests((64, 64))))

    (copied / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UnusableCheckpoint, match=r"lacks vae/\*.safetensors"):
        settings(copied).check()

    other = shutil.copytree(folder, tmp_path / "does not see the image")
    config = json.loads((other / "unet" / "config.json").read_text())
    (other / "unet" / "config.json").write_text(json.dumps(config | {"in_channels": 4}))
    with pytest.raises(UnusableCheckpoint, match="reads 4 channels and not 8"):
        settings(other).check()


def test_nothing_is_named() -> None:
    own = InstructPix2PixSettings()
    assert "set editor.model=" in own.lacking
    with pytest.raises(UnusableCheckpoint, match="no image editor is named"):
        own.files(lambda: None)
