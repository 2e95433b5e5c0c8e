"""Both stages of a training compute in the precision that it names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest


@pytest.mark.parametrize(
    ("precision", "products", "half"),
    [("fp32", "highest", False), ("tf32", "high", False), ("bf16", "highest", True)],
)
def test_the_second_stage_embeds_in_the_precision_of_the_training(
    monkeypatch: pytest.MonkeyPatch, precision: Any, products: str, half: bool
) -> None:
    """On a GPU, of which the test needs no more than the name."""
    import torch

    from models.instructcir import second_stage

    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    seen: list[tuple[str, bool]] = []

    def embedded(*_: object) -> torch.Tensor:
        seen.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cuda")))
        return torch.zeros(2, 3)

    monkeypatch.setattr(second_stage, "_queries", lambda *_: (embedded(), embedded()))
    monkeypatch.setattr(second_stage, "_images", embedded)
    rows = SimpleNamespace(
        triplets=[SimpleNamespace(reference="a", target="b")] * 2, target_ids=torch.zeros(2)
    )
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    second_stage.frozen_features(
        MagicMock(),
        rows,  # type: ignore[arg-type]
        MagicMock(),
        MagicMock(),
        with_image=True,
        device=torch.device("cuda"),
        precision=precision,
    )
    assert seen == [(products, half)] * 4
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
