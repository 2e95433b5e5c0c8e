"""Train a reformulation network, resumably, and publish it once under its content key."""

from __future__ import annotations

import gc
import json
import math
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.locations.location import Location
from tasks.networks import why_not_zero_shot
from tasks.training.card import model_card
from tasks.training.curve_artifacts import show_curves
from tasks.training.curves import curves_csv, curves_page
from tasks.training.folder import History, TrainingFolder
from tasks.training.job import ReformulationJob, RunSettings
from tasks.training.publish import publish, publishing_once
from tasks.training.shown_progress import ShownProgress

if TYPE_CHECKING:
    import torch

    from models.instructcir.combiner import Combiner
    from models.instructcir.combiner_training import FrozenFeatures
    from models.instructcir.network import ReformulationNetwork
    from models.instructcir.settings import LossSettings
    from tasks.training.data import ReformulationData, TripletRows

NOT_ZERO_SHOT_AS_GIVEN = "whoever trained it said so"


@publishing_once("train reformulation network")
def train_reformulation_network(
    job: ReformulationJob, run: RunSettings, notes: dict[str, Any]
) -> dict[str, Any]:
    """Both stages, from the last saved state if there is one; does nothing if published.

    Args:
        job: What is trained on what.
        run: Where.
        notes: What else the model card should say, by name.
    """
    if not job.is_published:
        _train_and_publish(job, run, notes)
    config = json.loads(Location(job.root).read_bytes(f"{job.folder}/{job.LAST}"))
    summary: dict[str, Any] = config["provenance"]["summary"]
    return {"checkpoint": job.place, **summary}


def _train_and_publish(job: ReformulationJob, run: RunSettings, notes: dict[str, Any]) -> None:
    """Both stages, by no more than one process of a machine at a time.

    Raises:
        TrainingHeld: another process is at it.
    """
    folder = job.training_folder
    with folder.held():
        if not job.is_published:  # by a process that held the folder until now
            _train_in(folder, job, run, notes)


def _train_in(
    folder: TrainingFolder, job: ReformulationJob, run: RunSettings, notes: dict[str, Any]
) -> None:
    # Torch takes seconds to import: a rerun that has nothing to do does without.
    from safetensors.torch import load_file

    job.training.share(run.devices)  # refused before anything is decoded
    folder.fetch()
    with ShownProgress(job.key, *job.amounts()) as shown:
        data, history = _first_stage(folder, job, run, shown)
        kept = load_file(folder.path / history.kept["file"])
        online, target = _branches(job, kept)
        loss = _learned_loss(job, kept)
        del kept
        combiner, combined = _second_stage(job, run, data, loss, (online, target), shown)
    _publish(job, data, history, combined, notes, (online, target, combiner))
    folder.clear()


def _first_stage(
    folder: TrainingFolder, job: ReformulationJob, run: RunSettings, shown: ShownProgress
) -> tuple[ReformulationData, History]:
    """Stage one, if it is not finished; the network that was trained ends with this."""
    from models.instructcir.network import build_network
    from tasks.training.launcher import train_beside
    from tasks.training.trainer import fit, load_data

    network = build_network(job.encoder, job.network, job.training.seed)
    data = load_data(job, run, network)
    history = folder.finished()
    if history is None and run.devices == 1:
        fit(job, run, data, network, shown.report)
    elif history is None:
        train_beside(job, run, shown.report)
    del network
    gc.collect()  # Lightning's trainer holds it in a circle
    history = folder.finished()
    if history is None:
        raise RuntimeError(f"the training in {folder.path} stopped before its end; run it again")
    return data, history


def _branches(
    job: ReformulationJob, kept: dict[str, torch.Tensor]
) -> tuple[ReformulationNetwork, ReformulationNetwork]:
    """The trained network and its moving average from kept weights."""
    from models.instructcir.ema import EmaTarget
    from models.instructcir.network import build_network

    online = build_network(job.encoder, job.network, job.training.seed)
    online.load_state_dict(_below("network.", kept))
    if job.training.augmentation == "targetpad":  # who uses it must pad as training did
        padded = replace(online.parts.preprocess, mode="targetpad")
        online.parts = replace(online.parts, preprocess=padded)
    if not job.ema.enabled:
        return online.eval(), online
    average = EmaTarget(online, job.ema)
    average.load_state_dict(_below("ema.", kept))
    return online.eval(), average.network


def _below(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def _learned_loss(job: ReformulationJob, kept: dict[str, torch.Tensor]) -> LossSettings:
    """The loss with the temperature of the kept weights, where that was trained."""
    if not job.loss.learnable_temperature:
        return job.loss
    learned = math.exp(-float(kept["temperature.log_scale"]))
    return job.loss.changed(temperature=learned, learnable_temperature=False)


def _second_stage(
    job: ReformulationJob,
    run: RunSettings,
    data: ReformulationData,
    loss: LossSettings,
    networks: tuple[ReformulationNetwork, ReformulationNetwork],
    shown: ShownProgress,
) -> tuple[Combiner | None, dict[str, Any]]:
    """The trained combiner, and how it went: losses, and recall with and without it."""
    import torch

    from models.instructcir.combiner import new_combiner
    from models.instructcir.combiner_training import train_combiner
    from models.instructcir.recall import recall
    from tasks.training.features import frozen_features, rows_to_embed

    if job.combiner is None:
        return None, {}
    online, target = networks
    combiner = new_combiner(online.dim, job.combiner, job.training.seed)
    branch = online if job.training.branch == "online" else target
    device = torch.device(
        "cuda" if torch.cuda.is_available() and run.accelerator != "cpu" else "cpu"
    )

    with_image = combiner.needs_image
    parts = [rows for rows in (data.training, data.validation) if rows.triplets]
    total = sum(rows_to_embed(rows, branch is target, with_image) for rows in parts)
    embedded = 0

    def tick(count: int) -> None:
        nonlocal embedded
        embedded += count
        shown.embedded(embedded, total)

    def features(rows: TripletRows) -> FrozenFeatures:
        precision = job.training.precision
        return frozen_features(
            data, rows, branch, target, with_image, device, precision=precision, tick=tick
        )

    losses = train_combiner(
        combiner,
        features(data.training),
        loss,
        learning_rate=job.training.combiner_learning_rate,
        epochs=job.training.combiner_epochs,
        batch_size=job.training.batch_size,
        seed=job.training.seed,
    )
    found: dict[str, Any] = {
        "branch": job.training.branch,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }
    if data.validation.triplets:
        held_out = features(data.validation)
        with torch.no_grad():
            combined = held_out.combined(combiner, torch.arange(len(held_out.z)))
        for name, queries in (("alone", held_out.z), ("combined", combined)):
            scores = recall(queries, held_out.targets, held_out.target_ids)
            found |= {f"{name}_{key}": value for key, value in asdict(scores).items()}
    return combiner, found


def _publish(
    job: ReformulationJob,
    data: ReformulationData,
    history: History,
    combined: dict[str, Any],
    notes: dict[str, Any],
    networks: tuple[ReformulationNetwork, ReformulationNetwork, Combiner | None],
) -> None:
    """Write everything that belongs to the network below its key; its configuration last."""
    from models.instructcir.checkpoint import save_network

    online, target, combiner = networks
    kept_step = int(history.kept["step"])
    validation = next((v for v in history.validations if v["step"] == kept_step), {})
    summary = {
        "key": job.key,
        "step": kept_step,
        "steps": int(history.points[-1]["step"]),
        "triplets": len(data.training.triplets),
        "validation_triplets": len(data.validation.triplets),
        "skipped_triplets": data.skipped,
        "unreadable_images": len(data.left_out),
        "validation": validation,
        "combiner": combined,
    }
    provenance: dict[str, Any] = {
        "spec": job.spec,
        "triplets": job.triplets.model_dump(mode="json", exclude={"root"}),
        "triplets_spec": dict(job.triplets.table().spec),
        "zero_shot": not job.not_zero_shot,
        "zero_shot_reason": NOT_ZERO_SHOT_AS_GIVEN if job.not_zero_shot else "",
        "notes": notes,
        "summary": summary,
    }
    label = why_not_zero_shot(provenance)
    title = f"reformulation network {job.key}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, job.key)
        save_network(
            folder,
            online=online,
            target=target,
            combiner=combiner,
            provenance=provenance,
            dtype=job.training.saved_as,
        )
        (folder / "curves.csv").write_text(curves_csv(history), encoding="utf-8")
        (folder / "curves.html").write_text(curves_page(title, history), encoding="utf-8")
        (folder / "README.md").write_text(model_card(job, history, summary, notes, label), "utf-8")
        publish(job, {path.name: path for path in folder.iterdir()})
    show_curves(job.key, title, history, job.place)
