"""Train InstructCIR's reformulation network: generated triplets in, a checkpoint out."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import State

from flows import run_names
from flows.form_choices import offer_what_exists
from flows.requests import train_reformulation as requests
from flows.requests.prepared import prepared_by
from flows.requests.train_reformulation import Groups, ReformulationRequest
from flows.running import train_once
from flows.summaries import summed_up
from models.encoders.spec import EncoderSpec
from models.spelling import counted
from tasks.redacted import redacting
from tasks.settings import Profile
from tasks.training.instructcir import train_reformulation_network
from tasks.training.reformulation_job import ReformulationJob
from tasks.training.triplet_sets import TripletSet


def reformulation_job(
    root: str,
    triplets: TripletSet,
    encoder: EncoderSpec,
    groups: Groups,
    not_zero_shot: bool = False,
    start: str = "",
) -> ReformulationJob:
    """The job that trains a network."""
    return ReformulationJob.of(
        root,
        triplets,
        encoder,
        network=groups.network,
        loss=groups.loss,
        ema=groups.ema,
        combiner=groups.combiner,
        training=groups.training,
        not_zero_shot=not_zero_shot,
        start=start,
    )


def train_network_on(profile: Profile, triplets: TripletSet, groups: Groups, name: str = "") -> str:
    """Folder of a network for a profile's backbone, trained unless it is published.

    Args:
        profile: Backbone and where the network is published.
        triplets: What it sees.
        groups: Settings of the training.
        name: What it is trained on, for progress lines; empty: the number of triplets.
    """
    job = reformulation_job(profile.root, triplets, profile.encoder, groups)
    amount, title = sum(job.amounts()), f"train on {name or counted(triplets.count, 'triplet')}"
    result = train_once(title, train_reformulation_network, job, amount, groups.run, {})
    return str(result["checkpoint"])


@flow(
    name="train-reformulation",
    flow_run_name=run_names.training("train InstructCIR"),
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.train_reformulation)
def train_reformulation(asked: ReformulationRequest) -> State[Any]:
    """Train, unless the network is published."""
    job = reformulation_job(
        asked.profile.root,
        asked.triplets,
        asked.profile.encoder,
        asked.groups,
        asked.not_zero_shot,
        asked.start,
    )
    made = train_once(
        "train reformulation network",
        train_reformulation_network,
        job,
        sum(job.amounts()),
        asked.groups.run,
        asked.notes,
    )
    offer_what_exists()
    return summed_up(made)
