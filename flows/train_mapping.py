"""Train a LinCIR mapping network: from captions alone, for any backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow

from flows.requests import train_mapping as requests
from flows.requests.prepared import prepared_by
from flows.running import train_once
from models.textual_inversion.settings import PRESETS, LinCirConfig, WordMasking
from tasks.planner import caption_stage
from tasks.redacted import redacting
from tasks.settings import Profile
from tasks.training.caption_files import read_captions
from tasks.training.mapping import (
    Captions,
    MappingJob,
    cached_captions,
    captions_key,
    train_network,
)


@flow(
    name="train-mapping",
    flow_run_name="train mapping network",
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.train_mapping)
def train_mapping(asked: requests.MappingRequest) -> dict[str, Any]:
    """Train on the captions of a file or of a collection."""
    texts = asked.captions
    if texts is None:
        texts = cached_captions(caption_stage(asked.profile, asked.collection))
    return _train(asked.profile, texts, asked.config, asked.words)


def train_mapping_for(profile: Profile, captions: str, steps: int) -> str:
    """Folder of a mapping network for a profile's backbone, trained unless it is published.

    Args:
        profile: Backbone and where the network is published.
        captions: Text or Parquet file of captions, or the name of a captioned collection.
        steps: Optimiser steps.
    """
    is_file = Path(captions).is_file()
    texts = (
        read_captions(captions) if is_file else cached_captions(caption_stage(profile, captions))
    )
    config = LinCirConfig(steps=steps)
    return str(_train(profile, texts, config, PRESETS["cirflow"])["checkpoint"])


def _train(
    profile: Profile, texts: Sequence[str], config: LinCirConfig, words: WordMasking
) -> dict[str, Any]:
    job = MappingJob(profile.root, profile.query_encoder, config, words, captions_key(texts))
    result = train_once("train mapping network", train_network, job, config.steps, Captions(texts))
    return result | {"captions": len(texts)}
