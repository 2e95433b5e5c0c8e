"""The training loop of all recipes: its schedule, and runs that are stopped and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from torch import Tensor, nn

pytestmark = pytest.mark.slow


def test_schedule_rises_holds_and_falls() -> None:
    from embedded_world.recipes.training import Schedule

    schedule = Schedule(steps=100, rate=1.0, warm_up=10, hold=0.5, floor=0.02)
    assert [schedule.at(s) for s in (0, 9, 49)] == [0.1, 1.0, 1.0]
    assert schedule.at(75) == pytest.approx(0.5)
    assert schedule.at(99) == pytest.approx(0.02)


def regression(folder: Path, stop: int | None = None, rate: float = 1e-2) -> nn.Module:
    """A small run whose data follow from the step; interrupted at `stop` where given."""
    import torch
    from torch import nn

    from embedded_world.recipes.training import AdamWLearner, Schedule, TrainingRun

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def losses(step: int) -> dict[str, Tensor]:
        if step == stop:
            raise KeyboardInterrupt
        x = torch.from_numpy(np.random.default_rng(step).normal(size=(16, 4))).float()
        return {"square": (model(x)[:, 0] - x.sum(dim=1)).square().mean()}

    schedule = Schedule(12, rate, warm_up=3)
    learner = AdamWLearner(model, schedule, weight_decay=0.1, losses=losses, look=str)
    TrainingRun(learner, folder, {"rate": rate}).finish(save_every=5, look_every=100)
    return model


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    import torch

    undisturbed = regression(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        regression(tmp_path / "b", stop=8)
    resumed = regression(tmp_path / "b")
    for name, weight in undisturbed.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_finished_run_takes_no_step(tmp_path: Path) -> None:
    regression(tmp_path)
    regression(tmp_path, stop=0)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    regression(tmp_path)
    with pytest.raises(ValueError, match=r"other settings.*'rate': \(0.01, 0.1\)"):
        regression(tmp_path, rate=0.1)


def test_half_precision_keeps_integers() -> None:
    import torch

    from embedded_world.recipes.training import half_precision

    state = half_precision({"w": torch.ones(2), "n": torch.arange(3)})
    assert state["w"].dtype == torch.float16
    assert state["n"].dtype == torch.int64
