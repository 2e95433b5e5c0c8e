"""What is asked of `train-reformulation`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

from flows.form_fields import DEFAULTS, Group, Of, Values
from flows.forms import Overrides, ProfileName
from flows.profiles import resolve_profile
from flows.requests.checks import require_backbone, require_root
from flows.requests.triplet_training import First, Joined, triplet_set_of
from models.instructcir.settings import (
    CombinerSettings,
    EmaSettings,
    LossSettings,
    NetworkSettings,
    check_trainable,
)
from models.instructcir.training_settings import ReformulationTraining
from models.spelling import unknown
from tasks.networks import INSTRUCTCIR, network_config, network_facts
from tasks.settings import Profile
from tasks.training.run_settings import RunSettings

if TYPE_CHECKING:
    from tasks.training.triplet_sets import TripletSet

OWN: Final = ("epochs", "batch_size", "learning_rate", "new_learning_rate", "seed")
"""Settings of training that are parameters of the flow."""
TRAINING: Final = ReformulationTraining()
NETWORK: Final = Group(NetworkSettings, "network")


@dataclass(frozen=True)
class Groups:
    """The settings of a training, each group checked by name and type.

    Attributes:
        combiner: Of stage two; None leaves it out.
    """

    network: NetworkSettings = field(default_factory=NetworkSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    ema: EmaSettings = field(default_factory=EmaSettings)
    combiner: CombinerSettings | None = field(default_factory=CombinerSettings)
    training: ReformulationTraining = TRAINING
    run: RunSettings = field(default_factory=RunSettings)


GROUPS: Final = ("training", "loss", "network", "ema", "combiner", "run")


def groups_of(given: Mapping[str, Any]) -> Groups:
    """Groups from plain values; one that is not given has its defaults.

    Raises:
        ValueError: an unknown group or setting (with the nearest known one), a value that does not
            fit, or settings that cannot be trained together.
    """
    for name in given:
        if name not in GROUPS:
            raise ValueError(unknown("group of training", name, GROUPS))
    combiner = given.get("combiner", True)
    second = None
    if combiner is not False:
        second = CombinerSettings.given({} if combiner is True else combiner, "combiner")
    made = Groups(
        network=NetworkSettings.given(given.get("network"), "network"),
        loss=LossSettings.given(given.get("loss"), "loss"),
        ema=EmaSettings.given(given.get("ema"), "ema"),
        combiner=second,
        training=ReformulationTraining.given(given.get("training"), "training"),
        run=RunSettings.given(given.get("run"), "run"),
    )
    check_trainable(made.network, made.ema)
    made.training.share(made.run.devices)
    return made


@dataclass(frozen=True)
class ReformulationRequest:
    """A reformulation network to train.

    Attributes:
        profile: Backbone and where the network is published.
        triplets: The triplets.
        groups: Settings of the training.
        not_zero_shot: Whether all results must be labelled.
        notes: Further facts for the model card.
        start: Folder of the network that training starts from; empty: the backbone.
    """

    profile: Profile
    triplets: TripletSet
    groups: Groups
    not_zero_shot: bool
    notes: Values
    start: str


def train_reformulation(
    triplets: str | Values,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    n: First = None,
    joined: Joined = 0,
    start: str = "",
    epochs: Annotated[int, Of(ReformulationTraining, "epochs")] = TRAINING.epochs,
    batch_size: Annotated[int, Of(ReformulationTraining, "batch_size")] = TRAINING.batch_size,
    learning_rate: Annotated[
        float, Of(ReformulationTraining, "learning_rate")
    ] = TRAINING.learning_rate,
    new_learning_rate: Annotated[
        float, Of(ReformulationTraining, "new_learning_rate")
    ] = TRAINING.new_learning_rate,
    seed: Annotated[int, Of(ReformulationTraining, "seed")] = TRAINING.seed,
    devices: Annotated[int, Of(RunSettings, "devices")] = 1,
    network: Annotated[Values, NETWORK] = DEFAULTS,
    loss: Annotated[Values, Group(LossSettings, "loss")] = DEFAULTS,
    ema: Annotated[Values, Group(EmaSettings, "ema")] = DEFAULTS,
    combiner: Annotated[Values, Group(CombinerSettings, "combiner")] | bool = True,
    training: Annotated[Values, Group(ReformulationTraining, "training", OWN)] = DEFAULTS,
    run: Annotated[Values, Group(RunSettings, "run", ("devices",))] = DEFAULTS,
    not_zero_shot: bool = False,
    notes: Values | None = None,
) -> ReformulationRequest:
    """Train the reformulation network and its combiner on the profile's backbone; publish both.

    A stopped run resumes from its last saved state and ends with the same weights as an
    uninterrupted one; a finished one is reused. The best step is chosen on held-out triplets of
    the same set, never on a split that is evaluated.

    Args:
        triplets: The file triplets.json that generate-triplets wrote, or its content; or a
            benchmark's train split as BENCHMARK:train:FOLDER, such as cirr:train:data/cirr, whose
            images are ingested. A part of it validates, and its results are not zero-shot.
        n: Train on the first n pairs of the sample only; smaller sets are parts of larger ones.
            Empty: all.
        joined: Further training triplets, made of two where the target of one is the reference of
            the next, with both texts: for queries that ask for two things.
        start: Folder of a trained reformulation network to train further, such as the zero-shot one
            on a train split; it brings its own backbone and `network`. Empty: the profile's CLIP.
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
    if "not_zero_shot" in (notes or {}):
        raise ValueError("give not_zero_shot as a parameter, not in notes")
    own = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "new_learning_rate": new_learning_rate,
        "seed": seed,
    }
    groups = groups_of(
        {
            "network": network,
            "loss": loss,
            "ema": ema,
            "combiner": combiner,
            "training": {**training, **own},
            "run": {**run, "devices": devices},
        }
    )
    if start:
        groups = _continuing(groups, start, network)
    else:
        require_backbone(chosen)
    found = triplet_set_of(triplets, chosen, n, joined)
    require_root(chosen)
    return ReformulationRequest(chosen, found, groups, not_zero_shot, notes or {}, start)


def _continuing(groups: Groups, start: str, network: Values) -> Groups:
    """The groups with the network of a folder.

    Raises:
        ValueError: the folder holds another system's network, or settings of one are given.
    """
    if (system := network_facts(start).system) != INSTRUCTCIR:
        raise ValueError(
            f"{start} is a network of {system}; InstructCIR starts from one that "
            "train-reformulation published, or from a CLIP (leave `start` out)"
        )
    if foreign := NETWORK.beside(network):
        raise ValueError(
            f"network={foreign!r} is of a network that is built on a CLIP, and {start} brings its "
            "own; leave it out, or leave out `start`"
        )
    own = NetworkSettings(**network_config(start)["network"])
    check_trainable(own, groups.ema)
    return replace(groups, network=own)
