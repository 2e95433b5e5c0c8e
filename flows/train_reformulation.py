"""Train InstructCIR's reformulation network: generated triplets in, a checkpoint out."""

from __future__ import annotations

from typing import Annotated, Any, Final

from prefect import flow

from flows.form_fields import DEFAULTS, Group, Of, Values
from flows.forms import Overrides, ProfileName
from flows.profiles import resolve_profile
from flows.running import train_once
from models.instructcir.settings import (
    CombinerSettings,
    EmaSettings,
    LossSettings,
    NetworkSettings,
)
from models.instructcir.training_settings import TrainingSettings
from tasks.redacted import redacting
from tasks.training.instructcir import train_reformulation_network
from tasks.training.job import ReformulationJob, RunSettings
from tasks.training.triplet_sets import TripletSet, parse_triplet_set

OWN: Final = ("epochs", "batch_size", "learning_rate", "new_learning_rate", "seed")
"""Settings of training that are parameters of the flow."""
TRAINING: Final = TrainingSettings()


def reformulation_job(
    root: str,
    triplets: TripletSet,
    encoder: Any,
    *,
    network: Values | None = None,
    loss: Values | None = None,
    ema: Values | None = None,
    combiner: Values | bool = True,
    training: Values | None = None,
    not_zero_shot: bool = False,
) -> ReformulationJob:
    """A job from plain values, each group checked by name and type."""
    second = None
    if combiner is not False:
        second = CombinerSettings.given({} if combiner is True else combiner, "combiner")
    return ReformulationJob.of(
        root,
        triplets,
        encoder,
        network=NetworkSettings.given(network, "network"),
        loss=LossSettings.given(loss, "loss"),
        ema=EmaSettings.given(ema, "ema"),
        combiner=second,
        training=TrainingSettings.given(training, "training"),
        not_zero_shot=not_zero_shot,
    )


@flow(
    name="train-reformulation",
    flow_run_name="train reformulation network",
    persist_result=False,
    result_serializer="json",
)
@redacting
def train_reformulation(
    triplets: str | Values,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    n: int | None = None,
    epochs: Annotated[int, Of(TrainingSettings, "epochs")] = TRAINING.epochs,
    batch_size: Annotated[int, Of(TrainingSettings, "batch_size")] = TRAINING.batch_size,
    learning_rate: Annotated[float, Of(TrainingSettings, "learning_rate")] = TRAINING.learning_rate,
    new_learning_rate: Annotated[
        float, Of(TrainingSettings, "new_learning_rate")
    ] = TRAINING.new_learning_rate,
    seed: Annotated[int, Of(TrainingSettings, "seed")] = TRAINING.seed,
    devices: Annotated[int, Of(RunSettings, "devices")] = 1,
    network: Annotated[Values, Group(NetworkSettings, "network")] = DEFAULTS,
    loss: Annotated[Values, Group(LossSettings, "loss")] = DEFAULTS,
    ema: Annotated[Values, Group(EmaSettings, "ema")] = DEFAULTS,
    combiner: Annotated[Values, Group(CombinerSettings, "combiner")] | bool = True,
    training: Annotated[Values, Group(TrainingSettings, "training", OWN)] = DEFAULTS,
    run: Annotated[Values, Group(RunSettings, "run", ("devices",))] = DEFAULTS,
    not_zero_shot: bool = False,
    notes: Values | None = None,
) -> dict[str, Any]:
    """Train the reformulation network and its combiner on the profile's backbone; publish both.

    A stopped run resumes from its last saved state and ends with the same weights as an
    uninterrupted one; a finished one is reused. The best step is chosen on held-out generated
    triplets, never on a benchmark.

    Args:
        triplets: The file triplets.json that generate-triplets wrote, or its content.
        n: Train on the first n pairs of the sample only; smaller sets are parts of larger ones.
        network: Parts of the network, e.g. {"cross_attended_blocks": 0, "gate": "zero_init"}.
        loss: Temperature, gathering, masking, e.g. {"temperature": 0.03}.
        ema: The moving average, e.g. {"enabled": false}.
        combiner: The second stage, e.g. {"kind": "clip4cir_mlp"}; false leaves it out.
        training: Further choices of training, e.g. {"class_grouping": 8, "precision": "bf16"}.
        run: Hardware and pace, e.g. {"strategy": "fsdp", "workers": 8, "cache_mb": 8192}.
        not_zero_shot: Label the network and all its results, because its training data owes
            something to a benchmark's annotations. A tuned rewriter brings the label itself.
        notes: Further facts for the model card, by name.
    """
    chosen = resolve_profile(profile, settings)
    found = parse_triplet_set(triplets)
    own = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "new_learning_rate": new_learning_rate,
        "seed": seed,
    }
    if "not_zero_shot" in (notes or {}):
        raise ValueError("give not_zero_shot as a parameter, not in notes")
    job = reformulation_job(
        chosen.root,
        found if n is None else found.first(n),
        chosen.encoder,
        network=network,
        loss=loss,
        ema=ema,
        combiner=combiner,
        training={**training, **own},
        not_zero_shot=not_zero_shot,
    )
    place = RunSettings.given({**run, "devices": devices}, "run")
    job.training.share(place.devices)  # refused before anything is decoded
    return train_once(
        "train reformulation network",
        train_reformulation_network,
        job,
        sum(job.amounts()),
        place,
        notes or {},
    )
