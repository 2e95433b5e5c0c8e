"""Published files with one weight that does not fit: refused by the file's own name for it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from models.blip.settings import EarlyFusionSettings
from models.checkpoints import UnusableCheckpoint
from models.composed.clip4cir_settings import SumSettings
from models.textual_inversion.mapping_files import MappingError
from tests.fakes.blip_files import VOCABULARY, original_state, published_blip

if TYPE_CHECKING:
    import torch

    State = dict[str, torch.Tensor]

BLIP = (
    *("visual_encoder.pos_embed", "visual_encoder.blocks.1.norm2.bias", "text_proj.weight"),
    *("visual_encoder.patch_embed.proj.weight", "text_encoder.embeddings.word_embeddings.weight"),
)
CLIP = (
    *("positional_embedding", "token_embedding.weight", "text_projection", "visual.conv1.weight"),
    *("visual.positional_embedding", "visual.transformer.resblocks.1.attn.in_proj_bias"),
)


def _broken(tensor: torch.Tensor) -> dict[str, torch.Tensor | None]:
    import torch

    holed = tensor.clone().reshape(-1)
    holed[0] = math.nan
    return {
        "absent": None,
        "one more axis": tensor[None, None],
        "empty": tensor.new_zeros(0),
        "narrow": tensor.narrow(-1, 0, 1)[..., :0] if tensor.ndim else torch.zeros(2),
        "bytes": tensor.to(torch.int8),
        "not a number": holed.view_as(tensor),
        "complex": tensor.to(torch.complex64),
        "sparse": tensor.reshape(tensor.shape or (1,)).to_sparse(),
    }


def _refused(
    state: State, names: tuple[str, ...], load: Callable[[State], object]
) -> list[tuple[str, str, str]]:
    """Name, fault and what was said, of all changed files that are not refused by that name."""
    wrong = []
    for name in names:
        for fault, tensor in _broken(state[name]).items():
            others = {n: t for n, t in state.items() if n != name}
            said = "nothing"
            try:
                load(others if tensor is None else {**others, name: tensor})
            except UnusableCheckpoint as error:
                said = str(error)
            if name not in said:
                wrong.append((name, fault, said))
    return wrong


def test_a_weight_of_a_blip_that_does_not_fit(tmp_path: Path) -> None:
    import torch

    from models.blip.candidate_filter import published_filter

    state = original_state(published_blip()) | {"temp": torch.tensor(0.07)}
    state = {name: tensor for name, tensor in state.items() if "_m." not in name}
    (tmp_path / "vocab.txt").write_bytes(VOCABULARY)

    def load(changed: State) -> object:
        torch.save({"BLIP_Retrieval": changed}, tmp_path / "stage1.pt")
        return published_filter(tmp_path / "stage1.pt", EarlyFusionSettings())

    assert load(state)
    assert not _refused(state, BLIP, load)
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UnusableCheckpoint, match="temp"):
            load(state | {"temp": torch.tensor(temperature)})


def test_a_weight_of_a_clip_that_does_not_fit(tmp_path: Path) -> None:
    import open_clip
    import torch

    from models.composed.clip4cir_network import published_sum

    torch.manual_seed(0)
    state = open_clip.CLIP(
        embed_dim=64,
        quick_gelu=True,
        vision_cfg={"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        text_cfg={"width": 64, "heads": 1, "layers": 2},
    ).state_dict()

    def load(changed: State) -> object:
        torch.save({"CLIP": changed}, tmp_path / "tuned_clip.pt")
        return published_sum(tmp_path / "tuned_clip.pt", SumSettings())

    assert load(state)
    assert not _refused(state, CLIP, load)
    words = state["token_embedding.weight"]  # [EOT] is the last one
    with pytest.raises(UnusableCheckpoint, match=r"token_embedding.weight has 49407 rows"):
        load(state | {"token_embedding.weight": words[:-1].clone()})


def test_a_combiner_is_refused_by_its_published_names(tmp_path: Path) -> None:
    import torch

    from models.composed.clip4cir_network import from_published, new_combiner, published_name
    from models.composed.clip4cir_settings import CombinerSettings
    from models.published_state import fill, read_state
    from tests.fakes.published_clips import published_combiner_state

    state = published_combiner_state(24, 10, 14)
    assert {published_name(name) for name in from_published(state)} == state.keys()
    combiner = new_combiner(24, CombinerSettings(projection=10, hidden=14))

    def load(changed: State) -> object:
        torch.save({"Combiner": changed}, tmp_path / "combiner.pt")
        read = read_state(tmp_path / "combiner.pt", "Combiner")
        fill(combiner, from_published(read), tmp_path, published_name)
        return True

    assert load(state)
    assert not _refused(state, ("dynamic_scalar.3.weight", "combiner_layer.bias"), load)
    with pytest.raises(UnusableCheckpoint, match=r"no place for .*gate\.7"):
        load(state | {"gate.7": torch.zeros(1)})


def _other_numbers(state: dict[str, Any]) -> dict[str, Any]:
    import torch

    name = "encoder.layers.1.own.weight"
    return {
        "int8": {**state, name: state[name].to(torch.int8)},
        "not finite": {**state, name: state[name] * math.nan},
        "lacks": {n: t for n, t in state.items() if n != name},
    }


@pytest.mark.parametrize("fault", ["int8", "not finite", "lacks"])
def test_a_folder_of_a_set_encoder_holds_numbers(tmp_path: Path, fault: str) -> None:
    import torch
    from safetensors.torch import save_file

    from models.textual_inversion.palavra import PalavraNetwork
    from models.textual_inversion.palavra_files import dump_palavra, load_palavra

    for name, content in dump_palavra(PalavraNetwork(8, 16, 12), {}).items():
        (tmp_path / name).write_bytes(content)
    state = dict(load_palavra(tmp_path).state_dict())
    save_file({n: t.half() for n, t in state.items()}, tmp_path / "model.safetensors")
    half = load_palavra(tmp_path).encoder.layers[1].own.weight
    torch.testing.assert_close(half, state["encoder.layers.1.own.weight"].half().float())
    save_file(_other_numbers(state)[fault], tmp_path / "model.safetensors")
    with pytest.raises(MappingError, match=r"encoder\.layers\.1\.own\.weight"):
        load_palavra(tmp_path)


@pytest.mark.parametrize("width", ['"x"', "-3", "0", "null", "1.5", "true"])
def test_a_size_of_a_set_encoder_is_a_number(tmp_path: Path, width: str) -> None:
    from models.textual_inversion.palavra import PalavraNetwork
    from models.textual_inversion.palavra_files import dump_palavra, palavra_fingerprint

    for name, content in dump_palavra(PalavraNetwork(8, 16, 12), {}).items():
        (tmp_path / name).write_bytes(content.replace(b'"width": 12', f'"width": {width}'.encode()))
    with pytest.raises(MappingError, match=r"config\.json is damaged"):
        palavra_fingerprint(tmp_path)


def test_a_pointer_of_git_lfs_is_not_the_file(tmp_path: Path) -> None:
    from models.compodiff.checkpoint import load_denoiser
    from models.compodiff.folder import RELEASED_SETTINGS
    from models.published_state import read_state
    from models.textual_inversion.network import load_mapping

    said = "is the pointer of Git LFS and not the file itself; fetch that one"
    for name in ("phi.pt", "model.safetensors"):
        (tmp_path / name).write_text(
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"
        )
        with pytest.raises(UnusableCheckpoint, match=said):
            read_state(tmp_path / name)
        with pytest.raises(MappingError, match=said):
            load_mapping(tmp_path / name)
    config = {"model_type": "CompoDiff", **dict.fromkeys(RELEASED_SETTINGS, 8)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnusableCheckpoint, match=said):
        load_denoiser(tmp_path)
