"""Train a reformulation network, resumably, and publish it once under its content key."""

from __future__ import annotations

import gc
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.locations.location import Location
from tasks.networks import why_not_zero_shot
from tasks.training.card import model_card
from tasks.training.curve_artifacts import show_curves
from tasks.training.curves import curves_csv, curves_page
from tasks.training.folder import History, TrainingFolder
from tasks.training.job import ReformulationJob
from tasks.training.publish import publish, publishing_once
from tasks.training.run_settings import RunSettings
from tasks.training.shown_progress import ShownProgress
from tasks.training.spent import FILE, cost_file

if TYPE_CHECKING:
    from models.instructcir.combiner import Combiner
    from models.instructcir.data_module import ReformulationData
    from models.instructcir.network import ReformulationNetwork

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
    from models.devices import pick_device
    from models.instructcir.second_stage import train_second_stage
    from models.instructcir.stage_one_weights import load_weights

    job.training.share(run.devices)  # refused before anything is decoded
    folder.fetch()
    combiner, combined = None, dict[str, Any]()
    with ShownProgress(job.key, *job.amounts()) as shown:
        data, history = _first_stage(folder, job, run, shown)
        weights = folder.path / history.kept["file"]
        trained = load_weights(weights, job.encoder, job.network, job.ema, job.loss, job.training)
        started = time.monotonic()
        if job.combiner is not None:
            combiner, combined = train_second_stage(
                data,
                trained.online,
                trained.target,
                combiner=job.combiner,
                loss=trained.loss,
                training=job.training,
                device=pick_device("cpu" if run.accelerator == "cpu" else "auto"),
                shown=shown.embedded,
            )
    spent = cost_file(history.seconds + time.monotonic() - started, run.devices)
    networks = (trained.online, trained.target, combiner)
    _publish(job, data, history, combined, notes, spent, networks)
    folder.clear()


def _first_stage(
    folder: TrainingFolder, job: ReformulationJob, run: RunSettings, shown: ShownProgress
) -> tuple[ReformulationData, History]:
    """Stage one, if it is not finished; the network that was trained ends with this."""
    from models.instructcir.network import build_network
    from tasks.training.data import load_data
    from tasks.training.launcher import train_in_processes
    from tasks.training.trainer import fit

    network = build_network(job.encoder, job.network, job.training.seed)
    data = load_data(job, run, network)
    history = folder.finished()
    if history is None and run.devices == 1:
        fit(job, run, data, network, shown.report)
    elif history is None:
        train_in_processes(job, run, shown.report)
    del network
    gc.collect()  # Lightning's trainer holds it in a circle
    history = folder.finished()
    if history is None:
        raise RuntimeError(f"the training in {folder.path} stopped before its end; run it again")
    return data, history


def _publish(
    job: ReformulationJob,
    data: ReformulationData,
    history: History,
    combined: dict[str, Any],
    notes: dict[str, Any],
    spent: bytes,
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
        (folder / FILE).write_bytes(spent)
        (folder / "README.md").write_text(model_card(job, history, summary, notes, label), "utf-8")
        publish(job, {path.name: path for path in folder.iterdir()})
    show_curves(job.key, title, history, job.place)
