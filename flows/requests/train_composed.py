"""What is asked of `train-composed`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Final

from flows.form_fields import DEFAULTS, Group, Of, OneOf, Text, Values
from flows.forms import PROFILE_CLIP, Clip, Overrides, ProfileName, with_choices
from flows.profiles import resolve_profile
from flows.requests.checks import require_backbone, require_root
from flows.requests.triplet_training import First, Joined, TripletRequest, triplet_set_of
from models.blip.settings import ON_BACKBONE, EarlyFusionSettings
from models.composed.registry import SYSTEMS
from models.composed.registry import system as system_named
from models.composed.system_record import ComposedSystem
from models.settings import Settings
from models.training.settings import ComposedTraining
from tasks.networks import network_facts
from tasks.training.run_settings import RunSettings

SYSTEM: Final = OneOf("system", tuple(SYSTEMS))
TRAINING: Final = Group(
    ComposedTraining,
    "training",
    starts=tuple((name, own.training) for name, own in SYSTEMS.items()),
)


def _own(system: ComposedSystem) -> str:
    fields = system.settings.model_fields.items()
    return f"{system.name}: {', '.join(f'{name} {json.dumps(f.default)}' for name, f in fields)}"


NETWORK: Final = Text(
    "The system's own settings by name, where they differ from its paper's. There are, each with "
    f"its default, for {'; '.join(map(_own, SYSTEMS.values()))}."
)


@dataclass(frozen=True)
class ComposedRequest(TripletRequest):
    """A composed query encoder to train.

    Attributes:
        system: What is trained.
        network: The system's own settings.
        training: Of the training.
        start: Folder of the trained network that this one starts from; empty: the backbone.
    """

    system: ComposedSystem
    network: Settings
    training: ComposedTraining
    start: str


def train_composed(
    system: Annotated[str, SYSTEM],
    triplets: str | Values,
    backbone: Clip = PROFILE_CLIP,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    n: First = None,
    joined: Joined = 0,
    devices: Annotated[int, Of(RunSettings, "devices")] = 1,
    network: Annotated[Values, NETWORK] = DEFAULTS,
    training: Annotated[Values, TRAINING] = DEFAULTS,
    run: Annotated[Values, Group(RunSettings, "run", ("devices",))] = DEFAULTS,
    not_zero_shot: str = "",
    start: str = "",
    notes: Values | None = None,
) -> ComposedRequest:
    """Train a composed query encoder (TransAgg, CoVR, ...) on triplets, and publish it.

    A stopped run resumes from its last saved state and ends with the same weights as an
    uninterrupted one; a finished one is reused. The best step is chosen on held-out triplets.
    Use the result as composed.SYSTEM=FOLDER.

    Args:
        system: What is trained.
        triplets: The file triplets.json that generate-triplets wrote, or its content; or a
            benchmark's train split as BENCHMARK:train:FOLDER, as in train-reformulation.
        n: Train on the first n pairs of the sample only; smaller sets are parts of larger ones.
            Empty: all.
        joined: Further training triplets, made of two where the target of one is the reference of
            the next, with both texts: for queries that ask for two things.
        training: Choices of training where they differ from the system's published schedule,
            e.g. {"max_steps": 750, "batch_size": 64}.
        run: Hardware and pace, e.g. {"strategy": "fsdp", "workers": 8, "cache_mb": 8192}.
        not_zero_shot: Why results must be labelled, where the triplets owe something to a
            benchmark's annotations. A train split and a tuned rewriter bring the label themselves.
        start: Folder of the trained network that the system starts from, where its training has
            stages; clip4cir starts from one of clip4cir-sum. covr, case and transagg start from the
            backbone, or from a covr (BLIP's own files are imported as one); a candidate-rerank goes
            on from another one, too, and a tuned-embedding from an imported checkpoint.
        notes: Further facts for the model card, by name.
    """
    record = system_named(system)
    own = record.settings.given(network, "network")
    if start and isinstance(own, EarlyFusionSettings):
        _refuse_unread(own, start)
    chosen_training = record.training.with_given(training, "training")
    chosen_run = RunSettings.given({**run, "devices": devices}, "run")
    chosen_training.share(chosen_run.devices)
    chosen = resolve_profile(profile, with_choices(settings, backbone))
    require_backbone(chosen)
    found = triplet_set_of(triplets, chosen, n, joined)
    require_root(chosen)
    _require_start(record, start)
    return ComposedRequest(
        profile=chosen,
        system=record,
        triplets=found,
        network=own,
        training=chosen_training,
        run=chosen_run,
        not_zero_shot=not_zero_shot,
        start=start,
        notes=notes or {},
    )


def _refuse_unread(own: EarlyFusionSettings, start: str) -> None:
    """Refuse settings that would be another training by name alone."""
    if unread := sorted(ON_BACKBONE & own.model_fields_set):
        raise ValueError(
            f"{', '.join(f'network.{name}' for name in unread)}: of a text tower that is built on "
            f"a backbone, and {start} brings its own; leave it out, or leave out `start`"
        )


def _require_start(record: ComposedSystem, start: str) -> None:
    """Refuse a start that is missing, not needed, or another system's."""
    wanted = record.starts_from
    if not wanted:
        if start:
            raise ValueError(f"{record.title} starts from the backbone; leave `start` out")
        return
    if not start and record.build is not None:
        return
    if not start:
        first = (
            f"import one (cirflow import network {wanted} CHECKPOINT --out FOLDER)"
            if wanted == record.name
            else f"train {wanted} first (cirflow run train-composed --set system={wanted})"
        )
        raise ValueError(
            f"{record.title} starts from a trained network: {first}, and give its folder as `start`"
        )
    allowed = (wanted, record.name) if record.goes_on else (wanted,)
    if (found := network_facts(start).system) not in allowed:
        raise ValueError(
            f"{start} is a network of {found}; {record.title} starts from {' or '.join(allowed)}"
        )
