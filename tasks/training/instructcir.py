"""Train a reformulation network, resumably, and publish it once under its content key."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.training.card import Card, publish_network, summary_of
from tasks.training.fitting import train_once_in_folder
from tasks.training.folder import History
from tasks.training.publish import publishing_once, result_of
from tasks.training.reformulation_job import ReformulationJob
from tasks.training.run_settings import RunSettings
from tasks.training.shown_progress import ShownProgress
from tasks.training.spent import cost_file

if TYPE_CHECKING:
    from models.instructcir.combiner import Combiner
    from models.instructcir.network import ReformulationNetwork
    from models.training.triplet_data import TripletData

NOT_ZERO_SHOT_AS_GIVEN = "it was labelled so when it was trained"


@publishing_once("train reformulation network")
def train_reformulation_network(
    job: ReformulationJob, run: RunSettings, notes: dict[str, Any]
) -> dict[str, Any]:
    """Both stages, from the last saved state; a published network is left alone.

    Args:
        job: Settings and triplets of the training.
        run: Where and how fast it runs.
        notes: Further facts for the model card, by name.
    """
    if not job.is_published:
        _train_and_publish(job, run, notes)
    return result_of(job)


def _train_and_publish(job: ReformulationJob, run: RunSettings, notes: dict[str, Any]) -> None:
    """Both stages, by no more than one process of a machine at a time.

    Raises:
        TrainingHeld: another process is at it.
    """

    def finish(data: TripletData, history: History, weights: Path, shown: ShownProgress) -> None:
        _second_stage(job, run, notes, data, history, weights, shown)

    train_once_in_folder(job, run, finish)


def _second_stage(
    job: ReformulationJob,
    run: RunSettings,
    notes: dict[str, Any],
    data: TripletData,
    history: History,
    weights: Path,
    shown: ShownProgress,
) -> None:
    """Train the combiner, if one is asked for, and publish."""
    from models.instructcir.second_stage import train_second_stage
    from models.instructcir.stage_one_weights import load_weights

    combiner, combined = None, dict[str, Any]()
    trained = load_weights(weights, job.new_network(), job.ema, job.loss, job.training)
    started = time.monotonic()
    if job.combiner is not None:
        combiner, combined = train_second_stage(
            data,
            trained.online,
            trained.target,
            combiner=job.combiner,
            loss=trained.loss,
            training=job.training,
            device=run.device(),
            shown=shown.embedded,
        )
    spent = cost_file(history.seconds + time.monotonic() - started, run.devices)
    networks = (trained.online, trained.target, combiner)
    _publish(job, data, history, combined, notes, spent, networks)


def _publish(
    job: ReformulationJob,
    data: TripletData,
    history: History,
    combined: dict[str, Any],
    notes: dict[str, Any],
    spent: bytes,
    networks: tuple[ReformulationNetwork, ReformulationNetwork, Combiner | None],
) -> None:
    """Publish the network below its key."""
    from models.instructcir.checkpoint import save_network

    online, target, combiner = networks

    def save(folder: Path, provenance: Mapping[str, Any]) -> None:
        save_network(
            folder,
            online=online,
            target=target,
            combiner=combiner,
            provenance=provenance,
            dtype=job.training.saved_as,
        )

    card = Card(
        title=f"InstructCIR reformulation network {job.key}",
        purpose="Embeds a reference image under a modification text; the nearest gallery "
        "embedding is the answer. `online` and `ema` are the branches that embed the query; "
        "targets are embedded by the moving average where there is one.",
        base=job.base,
        groups={
            name: getattr(job, name) for name in ("network", "loss", "ema", "combiner", "training")
        },
        second_stage=combined,
    )
    publish_network(
        job,
        save,
        card,
        history,
        summary=summary_of(job.key, history, **data.counts) | {"combiner": combined},
        notes=notes,
        not_zero_shot=NOT_ZERO_SHOT_AS_GIVEN if job.not_zero_shot else job.label_of_start,
        spent=spent,
    )
