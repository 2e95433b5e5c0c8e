"""CompoDiff's files: the released form, read strictly, and our own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.models.compodiff.released import SMALL, random_state, shapes, write


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors", "one table"])
def test_a_released_file_loads_and_computes_what_it_should(tmp_path: Path, file: str) -> None:
    """The tensors are named by hand and computed by the naive loops."""
    import torch

    from models.compodiff.checkpoint import load_denoiser
    from tests.models.compodiff.naive import denoised

    state = random_state()
    kept = dict(state)
    if file == "one table":  # as transformers' own conversion leaves tensors that share memory
        del kept["model.net.transformer.layers.1.0.rotary_emb.freqs"]
        file = "model.safetensors"
    loaded = load_denoiser(write(tmp_path, kept, file))
    assert loaded.settings.features == "as_encoded"
    assert loaded.settings.timesteps == 100
    generator = torch.Generator().manual_seed(0)
    noisy, reference = torch.randn(2, 1, 24, generator=generator)
    text = torch.randn(1, 77, 20, generator=generator)
    found = loaded.denoiser(noisy, torch.tensor([61]), text, reference)[0]
    weights = {
        name.removeprefix("model.net."): tensor.double().numpy()
        for name, tensor in state.items()
        if name.startswith("model.net.")
    }
    wanted = denoised(
        weights,
        noisy[0].double().numpy(),
        61,
        text[0].double().numpy(),
        reference[0].double().numpy(),
        np.zeros((4, 4)),
        depth=SMALL["depth"],
        heads=SMALL["heads"],
    )
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-5 * abs(wanted).max())


def test_the_full_network_has_the_released_names() -> None:
    import torch

    from models.compodiff.network import Denoiser, DenoiserShape

    with torch.device("meta"):
        denoiser = Denoiser(DenoiserShape())
    released = shapes(dim=768, text=1280, depth=12, heads=16, width=64, side=64)
    assert {name: tuple(t.shape) for name, t in denoiser.state_dict().items()} == released
    # Three of the sizes, from the description of the file itself.
    assert released["transformer.layers.11.0.to_kv.weight"] == (128, 768)
    assert released["transformer.layers.0.1.to_kv.weight"] == (1024, 768)
    assert released["to_mask_embeds.1.net.0.0.weight"] == (1536, 4096)


Q = "transformer.layers.1.0.to_q.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop(f"model.net.{Q}"), f"it lacks 1 of the weights \\({Q}"),
        (
            lambda s: s.update({"model.net.transformer.layers.2.0.null_kv": s["model.net." + Q]}),
            r"no place for 1 of the weights \(transformer.layers.2.0.null_kv",
        ),
        (
            lambda s: s.update({f"model.net.{Q}": s[f"model.net.{Q}"][:, :5]}),
            f"of another shape are 1 of the weights \\({Q}",
        ),
        (lambda s: s.update({"extra": s[f"model.net.{Q}"]}), r"no place for .*extra"),
        (lambda s: s.update({f"model.net.{Q}": s[f"model.net.{Q}"] * np.nan}), "not finite"),
        (lambda s: s.update({f"model.net.{Q}": s[f"model.net.{Q}"].byte()}), "to_q"),
        (lambda s: s.update({"step": 3}), "not named weights"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change, said: str) -> None:
    from models.compodiff.checkpoint import load_denoiser
    from models.compodiff.folder import CompoDiffError

    state = random_state()
    change(state)
    with pytest.raises(CompoDiffError, match=said):
        load_denoiser(write(tmp_path, state))


def test_our_own_folder_gives_the_same_network_back(tmp_path: Path) -> None:
    import torch

    from models.compodiff.checkpoint import denoiser_files, load_denoiser
    from models.compodiff.folder import CompoDiffError, read_folder
    from models.compodiff.network import Denoiser, DenoiserShape
    from models.compodiff.settings import DenoiserSettings

    torch.manual_seed(0)
    denoiser = Denoiser(DenoiserShape(24, 20, 2, 3, 8, 0))
    settings = DenoiserSettings(depth=2, heads=3, head_width=8, timesteps=50)
    files = denoiser_files(denoiser, settings, {"model": "a"}, {"zero_shot": True})
    elsewhere = denoiser_files(denoiser, settings, {"model": "a"}, {"zero_shot": False})
    for place, made in (("one", files), ("two", elsewhere)):
        (tmp_path / place).mkdir()
        for name, content in made.items():
            (tmp_path / place / name).write_bytes(content)
    loaded = load_denoiser(tmp_path / "one")
    assert loaded.settings == settings
    assert loaded.folder.backbone == {"model": "a"}
    for name, tensor in denoiser.state_dict().items():
        assert torch.equal(loaded.denoiser.state_dict()[name], tensor)
    assert read_folder(tmp_path / "one").fingerprint == read_folder(tmp_path / "two").fingerprint

    config = json.loads(files["config.json"])
    for broken, said in (
        ({"format": "other"}, "neither of format cirflow-compodiff-1 nor of model_type CompoDiff"),
        ({"format": "cirflow-compodiff-1"}, "lacks settings, shape, base, provenance"),
        (config | {"shape": {"depth": 9}}, "it lacks"),
        (config | {"shape": {"deep": 9}}, "is damaged"),
    ):
        (tmp_path / "one/config.json").write_text(json.dumps(broken))
        with pytest.raises(CompoDiffError, match=said):
            load_denoiser(tmp_path / "one")
    (tmp_path / "two/model.safetensors").unlink()
    with pytest.raises(CompoDiffError, match=r"lacks model\.safetensors"):
        read_folder(tmp_path / "two")
