"""Recall of held-out triplets by both branches of the network."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Trainer

from models.instructcir.training_settings import Branch
from models.training.contrastive import gathered
from models.training.recall import Recall, recall
from models.training.triplet_data import TripletData

if TYPE_CHECKING:
    from models.instructcir.lightning_module import ReformulationModule


def validate(trainer: Trainer, module: ReformulationModule, data: TripletData) -> dict[str, Recall]:
    """Recall of held-out triplets among all held-out targets, by branch of the query.

    The triplets are shared out over the processes, each of which encodes equally many.
    """
    rows = data.validation
    count, world = len(rows.triplets), trainer.world_size
    each = -(-count // world)
    mine = [(trainer.global_rank * each + i) % count for i in range(each)]
    size = max(1, data.settings.batch_size // world)
    module.eval()
    parts: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad():
        for number, batch in enumerate(data.still_batches(rows, mine, size)):
            moved = trainer.strategy.batch_to_device(batch)
            encoded = trainer.strategy.validation_step(moved, number)
            for name, values in encoded.items():
                parts.setdefault(name, []).append(values)
        whole = {name: torch.cat(values) for name, values in parts.items()}
        if world > 1:
            whole = {name: gathered(values) for name, values in whole.items()}
    module.train()
    found = {name: values[:count].float().cpu() for name, values in whole.items()}
    targets = found.pop("target")
    return {name: recall(queries, targets, rows.target_ids) for name, queries in found.items()}


def validation_row(found: dict[str, Recall], branch: Branch) -> dict[str, float]:
    """The curves' values of a validation: every recall, and the `score` of the chosen branch."""
    row = {
        f"{name}_{measure}": value
        for name, values in found.items()
        for measure, value in asdict(values).items()
    }
    return row | {"score": (found.get(branch) or found["online"]).score}
