"""Train a mapping network for any backbone: from captions (LinCIR), or from images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import State

from flows import run_names
from flows.form_choices import offer_what_exists
from flows.requests import train_mapping as requests
from flows.requests.prepared import prepared_by
from flows.running import RunLog, run_stages, train_once
from flows.summaries import summed_up
from models.textual_inversion.settings import PRESETS, LinCirConfig, WordMasking
from tasks.profile_stages import (
    caption_feature_stage,
    caption_stage,
    image_stage,
    token_stage,
    word_stages,
)
from tasks.redacted import redacting
from tasks.settings import Profile
from tasks.training.caption_files import read_captions
from tasks.training.inversion import InversionJob, train_inversion
from tasks.training.mapping import (
    Captions,
    MappingJob,
    cached_captions,
    captions_key,
    train_network,
)
from tasks.training.palavra import PalavraJob


@flow(
    name="train-mapping",
    flow_run_name=run_names.mapping,
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.train_mapping)
def train_mapping(asked: requests.MappingRequest) -> State[Any]:
    """Train on captions of a file or of a collection, or on the images of a collection."""
    if asked.inversion is not None:
        made = _train_on_images(asked.profile, asked.collection, asked.inversion)
    else:
        texts = asked.captions
        if texts is None:
            texts = cached_captions(caption_stage(asked.profile, asked.collection))
        made = _train(asked.profile, texts, asked.config, asked.words)
    offer_what_exists()
    return summed_up(made)


def _train_on_images(
    profile: Profile, collection: str, asked: requests.InversionRequest
) -> dict[str, Any]:
    """Make features, and tokens and words where the system reads them; then train."""
    images = image_stage(profile, collection, asked.system.name)
    encoder = images.encoder.changed(dtype="fp32")
    tokens = token_stage(profile, images) if asked.system.tokens else None
    vectors, written = word_stages(profile, encoder) if asked.system.words else (None, None)
    captions = None
    if asked.system.captions:
        captions = caption_feature_stage(profile, collection, images.encoder)
    stages = [each for each in (images, tokens, vectors, written, captions) if each is not None]
    log = RunLog()
    run_stages(stages, log, profile.allow_gaps)
    common: dict[str, Any] = {
        "root": profile.root,
        "system": asked.system.name,
        "encoder": encoder.changed(device="cpu"),
        "images": images,
        "choices": asked.network.model_dump(mode="json"),
        "training": asked.training,
        "vectors": vectors,
        "phrases": profile.inversion.phrases,
        "written": written,
    }
    if captions is not None:
        job = PalavraJob(**common, captions=captions).pinned()
    else:
        job = InversionJob(**common, tokens=tokens).pinned()
    result = train_once(
        f"train {asked.system.title}", train_inversion, job, sum(job.amounts()), asked.run
    )
    return result | {"stages": [report.as_json() for report in log.stages]}


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
