"""An embedding model that is tuned here against the same checkpoint read by the library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from deployments.cli import main
from models.composed.tuned_embedding import SYSTEM, TunedEmbeddingSettings
from models.embedders.chat_embedder import ChatEmbedderSettings
from models.embedders.protocol import ComposedQuery
from tests.fakes.embedders import save_clip, save_qwen2_vl, save_qwen3_vl

if TYPE_CHECKING:
    from models.embedders.tuned_network import EmbeddingNetwork

TEXTS = ("make the circle red", "a", "add a blue star and a green box at the top")


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = ((96, 96), (70, 130), (120, 60))
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def as_the_library_reads(folder: Path, form: dict[str, Any], told: str) -> tuple[Any, Any]:
    """Vectors of queries and targets by an embedder, which the library's own calls are held to."""
    given = {"model": str(folder), "device": "cpu", "dtype": "fp32", "form": form}
    embedder = ChatEmbedderSettings.model_validate(given).load()
    queries = [ComposedQuery((p,), text) for p, text in zip(pictures(), TEXTS, strict=True)]
    made = embedder.encode_composed(queries, told), embedder.encode_targets(pictures())
    assert not any(made[0].reasons + made[1].reasons)
    return made[0].vectors, made[1].vectors


def as_a_network(network: EmbeddingNetwork) -> tuple[Any, Any]:
    from models.composed.encoder import ComposedEncoder

    encoder = ComposedEncoder(network.eval().requires_grad_(False))
    return encoder.encode_queries(pictures(), TEXTS), encoder.encode_gallery(pictures())


@pytest.mark.parametrize(
    ("save", "preset", "side"),
    [(save_qwen3_vl, "qwen3-vl-embedding", 96), (save_qwen2_vl, "gme", 84)],
)
def test_vectors_are_the_library_s(
    save: Callable[[Path], Path], preset: str, side: int, tmp_path: Path
) -> None:
    folder = save(tmp_path / "published")
    own = {"form": preset, "side": side, "instruction": "add it", "target_instruction": "a star"}
    assert SYSTEM.published is not None
    network: Any = SYSTEM.published(folder, TunedEmbeddingSettings.model_validate(own))
    limits = {"min_pixels": 0, "max_pixels": 0}
    form = {"preset": preset, "side": side, "target_instruction": "a star", **limits}
    expected = as_the_library_reads(folder, form, "add it")
    for one, other in zip(as_a_network(network), expected, strict=True):
        assert np.ptp(other) > 0.1
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)


def test_a_folder_goes_in_and_comes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from models.composed.checkpoint import load_composed
    from tasks.networks import network_facts

    published, out = save_qwen3_vl(tmp_path / "published"), tmp_path / "network"
    words = ["import", "network", "tuned-embedding", str(published), "--out", str(out)]
    assert main([*words, "--zero-shot", "--set", "instruction=add it"]) == 0
    assert "model.safetensors: sha256 " in capsys.readouterr().out
    assert network_facts(str(out)).dim == 128
    network = load_composed(out).network

    again = tmp_path / "checkpoint"
    assert main(["export", "network", str(out), "--out", str(again)]) == 0
    said = capsys.readouterr().out
    assert '--set embedder.instruction="add it"' in said
    assert "--set embedder.form.side=128" in said  # what the processor lets through: 16,384 pixels
    expected = as_the_library_reads(again, {"side": 128}, "add it")
    for one, other in zip(as_a_network(network), expected, strict=True):  # type: ignore[arg-type]
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)


def test_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = save_clip(tmp_path / "clip")
    words = ["import", "network", "tuned-embedding", "--out", str(tmp_path / "n"), "--zero-shot"]
    for folder, more, message in (
        (clip, [], "is a checkpoint of 'clip'; one of qwen3_vl, qwen2_5_vl, qwen2_vl"),
        (tmp_path, [], "has no config.json"),
        (save_qwen3_vl(tmp_path / "qwen"), ["--set", "side=50"], "give a multiple of it"),
    ):
        assert main([*words, str(folder), *more]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "n").exists()


def test_only_a_checkpoint_of_the_library_goes_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.fakes.rerankers import write_rerankers

    folder, _ = write_rerankers(tmp_path)
    assert main(["export", "network", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "is a network of candidate-filter" in capsys.readouterr().err
