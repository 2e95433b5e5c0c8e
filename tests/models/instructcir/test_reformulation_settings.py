"""Settings are plain values, and meaningless ones are refused."""

from __future__ import annotations

from typing import Any

import pytest

from models.instructcir.settings import (
    CombinerSettings,
    EmaSettings,
    LossSettings,
    NetworkSettings,
    check_trainable,
)


@pytest.mark.parametrize("kind", [NetworkSettings, LossSettings, EmaSettings, CombinerSettings])
def test_settings_survive_json(kind: Any) -> None:
    assert kind.model_validate_json(kind().model_dump_json()) == kind()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: NetworkSettings(gate="tanh"), "'none' or 'zero_init'"),  # type: ignore[arg-type]
        (lambda: NetworkSettings(text_mask="77"), "'eot' or 'full'"),  # type: ignore[arg-type]
        (lambda: NetworkSettings(cross_attended_blocks=-1), "greater than or equal to 0"),
        (lambda: NetworkSettings(predictor_ratio=0), "greater than or equal to 1"),
        (lambda: LossSettings(temperature=0.0), "greater than 0"),
        (lambda: LossSettings(temperature=0.001, learnable_temperature=True), "0.01 or above"),
        (lambda: EmaSettings(start=1.0, end=0.9), "1.0 to 0.9"),
        (lambda: EmaSettings(without="none"), "'shared' or 'stop_gradient'"),  # type: ignore[arg-type]
        (lambda: CombinerSettings(kind="mlp"), "clip4cir_mlp"),  # type: ignore[arg-type]
        (lambda: CombinerSettings(dropout=1.0), "less than 1"),
    ],
)
def test_meaningless_values_are_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_a_null_text_without_a_gradient_is_refused() -> None:
    learned = NetworkSettings(null_text="learned")
    for ema in (EmaSettings(), EmaSettings(enabled=False, without="stop_gradient")):
        with pytest.raises(ValueError, match="null_text='empty'"):
            check_trainable(learned, ema)
    check_trainable(learned, EmaSettings(enabled=False, without="shared"))
    check_trainable(NetworkSettings(), EmaSettings())
