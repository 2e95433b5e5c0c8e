"""What is asked of `train-compodiff`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from flows.form_fields import DEFAULTS, Group, Of, Values
from flows.forms import PROFILE_CLIP, Clip, Overrides, ProfileName, with_choices
from flows.profiles import resolve_profile
from flows.requests.checks import require_backbone, require_root
from flows.requests.triplet_training import First, Joined, TripletRequest, triplet_set_of
from models.compodiff.settings import DenoiserSettings
from models.training.settings import TrainingSettings
from tasks.training.run_settings import RunSettings

TRAINING: Final = TrainingSettings(batch_size=128, new_learning_rate=5e-4, weight_decay=0.01)
"""Suits the small denoiser; the released one had a rate of 1e-4 and far larger batches."""
TRAINING_GROUP: Final = Group(TrainingSettings, "training", starts=(("compodiff", TRAINING),))


@dataclass(frozen=True)
class CompoDiffRequest(TripletRequest):
    """A denoiser to train.

    Attributes:
        network: The denoiser and its noise.
        training: Of the training.
    """

    network: DenoiserSettings
    training: TrainingSettings


def train_compodiff(
    triplets: str | Values,
    backbone: Clip = PROFILE_CLIP,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    n: First = None,
    joined: Joined = 0,
    devices: Annotated[int, Of(RunSettings, "devices")] = 1,
    network: Annotated[Values, Group(DenoiserSettings, "network")] = DEFAULTS,
    training: Annotated[Values, TRAINING_GROUP] = DEFAULTS,
    run: Annotated[Values, Group(RunSettings, "run", ("devices",))] = DEFAULTS,
    not_zero_shot: str = "",
    notes: Values | None = None,
) -> CompoDiffRequest:
    """Train CompoDiff's denoiser on the image features of triplets, and publish it.

    The features are cached first. A stopped run resumes from its last saved state and ends with
    the same weights as an uninterrupted one; a finished one is reused. The best step is chosen on
    held-out triplets. Use the result as compodiff.checkpoint=FOLDER.

    Args:
        triplets: The file triplets.json that generate-triplets wrote, or its content; or a
            benchmark's train split as BENCHMARK:train:FOLDER, as in train-reformulation.
        n: Train on the first n pairs of the sample only; smaller sets are parts of larger ones.
            Empty: all.
        joined: Further training triplets, made of two where the target of one is the reference of
            the next, with both texts: for queries that ask for two things.
        network: Depth, heads, units and dropped conditions, e.g. {"depth": 4}.
        training: Choices of training, e.g. {"max_steps": 1200}.
        run: Hardware and pace, e.g. {"workers": 2}.
        not_zero_shot: Why results must be labelled, where the triplets owe something to a
            benchmark's annotations. A train split and a tuned rewriter bring the label themselves.
        notes: Further facts for the model card, by name.
    """
    chosen_training = TRAINING.with_given(training, "training")
    chosen_run = RunSettings.given({**run, "devices": devices}, "run")
    chosen_training.share(chosen_run.devices)
    own = DenoiserSettings.given(network, "network")
    chosen = resolve_profile(profile, with_choices(settings, backbone))
    require_backbone(chosen)
    found = triplet_set_of(triplets, chosen, n, joined)
    require_root(chosen)
    return CompoDiffRequest(
        profile=chosen,
        triplets=found,
        network=own,
        training=chosen_training,
        run=chosen_run,
        not_zero_shot=not_zero_shot,
        notes=notes or {},
    )
