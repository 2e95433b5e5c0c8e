"""The weights that stage one keeps, read as the two branches and the loss.

A kept state holds the network under `network.`, its moving average under `ema.` where there is
one, and a learned temperature as `temperature.log_scale`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from models.instructcir.ema import EmaTarget
from models.instructcir.network import ReformulationNetwork
from models.training.crops import still_preprocess
from models.training.weight_files import below

if TYPE_CHECKING:
    from models.instructcir.settings import EmaSettings, LossSettings
    from models.instructcir.training_settings import ReformulationTraining


@dataclass(frozen=True)
class Trained:
    """The result of stage one.

    Attributes:
        online: The trained network.
        target: Its moving average; the same network where there is none.
        loss: The loss that stage two continues with.
    """

    online: ReformulationNetwork
    target: ReformulationNetwork
    loss: LossSettings


def load_weights(
    path: Path,
    online: ReformulationNetwork,
    ema: EmaSettings,
    loss: LossSettings,
    training: ReformulationTraining,
) -> Trained:
    """Read kept weights (`models.training.weight_files`) with the settings of their training.

    Args:
        path: The file.
        online: The network as it was before its training; it gets the weights.
        ema: Of the training.
        loss: Of the training.
        training: Of the training.
    """
    kept = load_file(path)
    online.load_state_dict(below("network.", kept))
    seen = still_preprocess(online.parts.preprocess, training.augmentation)
    online.parts = replace(online.parts, preprocess=seen)
    target = online
    if ema.enabled:
        average = EmaTarget(online, ema)
        average.load_state_dict(below("ema.", kept))
        target = average.network
    return Trained(online.eval(), target, learned_loss(loss, kept))


def learned_loss(loss: LossSettings, kept: Mapping[str, torch.Tensor]) -> LossSettings:
    """The loss with the temperature of the kept weights, where that was trained."""
    if not loss.learnable_temperature:
        return loss
    learned = math.exp(-float(kept["temperature.log_scale"]))
    return loss.changed(temperature=learned, learnable_temperature=False)
