"""The GPU benchmark, on a CPU: operations against a count by hand, and what is printed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from models.instructcir.settings import EmaSettings, LossSettings
from models.instructcir.training_settings import ReformulationTraining

if TYPE_CHECKING:
    import torch

    from bench.reformulation_gpu import Figures
    from models.instructcir.lightning_module import ReformulationModule

N, W, T, D = 17, 32, 40, 24
"""Image tokens and their width in 2 blocks, width of text tokens in 3 blocks, joint space."""


@pytest.fixture
def figures() -> Figures:
    """Half of the peak of a device."""
    from bench.reformulation_gpu import Figures

    return Figures(
        device="NVIDIA H200",
        model="ViT-L-14",
        batch=128,
        precision="bf16",
        gradient_checkpointing=True,
        seconds=0.5,
        memory=3 * 2**30,
        sample_flops=1e12,
        peak_tflops=1000.0,
    )


@pytest.fixture
def module(tmp_path: Path) -> ReformulationModule:
    """The step of a small random network."""
    from models.instructcir.lightning_module import ReformulationModule
    from tests.fakes.small_networks import small_network

    made = ReformulationModule(
        small_network(tmp_path / "clip"),
        loss=LossSettings(),
        ema=EmaSettings(),
        training=ReformulationTraining(batch_size=8),
        total_steps=1,
    )
    made.configure_model()
    return made


def batch_for(module: ReformulationModule, size: int = 8) -> dict[str, torch.Tensor]:
    """Random pictures with one text."""
    import torch

    images = torch.randint(0, 255, (2, size, 32, 32, 3), dtype=torch.uint8)
    texts = module.network.text_ids(["a dog beside two cats"] * size)
    return {
        "references": images[0],
        "targets": images[1],
        "texts": texts,
        "target_ids": torch.arange(size),
    }


def image_block(seen: int) -> int:
    """One block: self-attention, cross-attention on `seen` text tokens, MLP."""
    attended = 2 * N * (4 * W * W) + 2 * (2 * N * N * W)
    crossed = 2 * N * (2 * W * W) + 2 * (2 * N * seen * W)
    return attended + crossed + 2 * N * (8 * W * W)


def keys_values(tokens: int) -> int:
    """Of the text, for one block."""
    return 2 * tokens * (2 * T * W)


def text_block(tokens: int) -> int:
    """One block of the text tower."""
    return 2 * tokens * (12 * T * T) + 2 * (2 * tokens * tokens * T)


def by_hand(tokens: int) -> int:
    """A triplet's operations, two for each multiplication with its addition.

    The backward pass of a product costs two more of its size, but the pictures need no gradient.
    """
    patches = 2 * 16 * (8 * 8 * 3) * W
    head = 2 * W * D + 2 * (2 * D * 4 * D + 4 * D * D)
    text = 3 * text_block(tokens) + 2 * T * D
    query = patches + 2 * (image_block(tokens) + keys_values(tokens)) + head + text
    target = patches + 2 * image_block(2) + head  # the null text is read once for all
    return 3 * query - patches + target


def test_the_count_is_that_of_the_architecture(module: ReformulationModule) -> None:
    from bench.reformulation_gpu import sample_flops

    batch = batch_for(module)
    assert sample_flops(module, batch) == pytest.approx(by_hand(batch["texts"].shape[1]), rel=1e-4)


def test_what_is_computed_again_is_no_work_of_the_model(module: ReformulationModule) -> None:
    from bench.reformulation_gpu import sample_flops, step_flops

    batch = batch_for(module)
    tokens = batch["texts"].shape[1]
    plain, counted = step_flops(module, batch), sample_flops(module, batch)
    module.network.set_gradient_checkpointing(True)
    # A block is computed up to the last product of its MLP, whose result nothing asks for.
    image = image_block(tokens) + keys_values(tokens) - 2 * N * (4 * W * W)
    text = text_block(tokens) - 2 * tokens * (4 * T * T)
    assert step_flops(module, batch) - plain == 8 * (2 * image + 3 * text)
    assert sample_flops(module, batch) == counted
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA H200", 989.4),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA L40", None),
        ("NVIDIA RTX A1000", None),
        ("Tesla T4", None),
    ],
)
def test_peaks_by_name(device: str, peak: float | None) -> None:
    from bench.reformulation_gpu import peak_tflops

    assert peak_tflops(device) == peak


def test_a_row_of_markdown(figures: Figures) -> None:
    from bench import reformulation_gpu

    head, rule, row = reformulation_gpu.as_table(figures).splitlines()
    assert row == (
        "| NVIDIA H200 | ViT-L-14 | 128 | bf16 | yes | 256.0 | 0.500 | 3.0 | 1000.0 | 25.6 % |"
    )
    assert head.count("|") == rule.count("|") == row.count("|")
    unknown = replace(figures, peak_tflops=None, memory=None)
    assert reformulation_gpu.as_table(unknown).endswith("| 0.500 | n/a | 1000.0 | n/a |")


def test_a_run_on_a_cpu_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.reformulation_gpu import main
    from tests.fakes.small_networks import write_clip

    folder = str(write_clip(tmp_path / "clip"))
    common = ["--device", "cpu", "--model", folder, "--batch", "4", "--steps", "2"]
    main([*common, "--workers", "1", "--gradient-checkpointing"])
    *table, missing, values = capsys.readouterr().out.splitlines()
    assert "| CPU (not a GPU figure) |" in table[-1]
    assert "no MFU" in missing
    said = json.loads(values)
    assert (said["batch"], said["gradient_checkpointing"], said["memory"]) == (4, True, None)
    assert said["seconds"] > 0
    assert said["sample_flops"] == pytest.approx(by_hand(14), rel=0.1)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from bench import reformulation_gpu
    from bench.reformulation_gpu import main

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU is at hand; --device cpu"):
        main([])
    reformulation_gpu.main_where_possible()
    assert capsys.readouterr().out == (
        "reformulation network on a GPU: skipped, no GPU is at hand\n"
    )
