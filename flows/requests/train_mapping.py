"""What is asked of `train-mapping`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from flows.form_fields import Of
from flows.forms import (
    PROFILE_CAPTIONING,
    PROFILE_CLIP,
    Captioning,
    Clip,
    Overrides,
    ProfileName,
    with_choices,
)
from flows.profiles import resolve_profile
from flows.requests.checks import require_backbone, require_collections, require_root
from models.textual_inversion.keywords import require_extractor
from models.textual_inversion.settings import PRESETS, LinCirConfig, WordMasking
from tasks.settings import Profile
from tasks.training.caption_files import read_captions

TRAINING: Final = LinCirConfig()


@dataclass(frozen=True)
class MappingRequest:
    """A mapping network to train.

    Attributes:
        profile: Backbone, and where the network is published.
        captions: Captions of a file; None: those of the collection.
        collection: Name of a captioned collection.
        config: Hyper-parameters.
        words: The words to mask, and how.
    """

    profile: Profile
    captions: Sequence[str] | None
    collection: str
    config: LinCirConfig
    words: WordMasking


def train_mapping(
    captions: str = "",
    collection: str = "",
    backbone: Clip = PROFILE_CLIP,
    captioning: Captioning = PROFILE_CAPTIONING,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    steps: Annotated[int, Of(LinCirConfig, "steps")] = TRAINING.steps,
    batch_size: Annotated[int, Of(LinCirConfig, "batch_size")] = TRAINING.batch_size,
    learning_rate: Annotated[float, Of(LinCirConfig, "learning_rate")] = TRAINING.learning_rate,
    dropout: Annotated[float, Of(LinCirConfig, "dropout")] = TRAINING.dropout,
    noise: Annotated[float, Of(LinCirConfig, "noise")] = TRAINING.noise,
    seed: Annotated[int, Of(LinCirConfig, "seed")] = TRAINING.seed,
    keywords: Literal["preset", "function_words", "spacy"] = "preset",
    masking: Literal["preset", "offsets", "substring"] = "preset",
    weight_decay: Annotated[float, Of(LinCirConfig, "weight_decay")] = TRAINING.weight_decay,
    normalise_input: Annotated[bool, Of(LinCirConfig, "normalise_input")] = False,
    preset: Literal["cirflow", "lincir"] = "cirflow",
) -> MappingRequest:
    """Train a mapping network for a backbone and publish it.

    Name its folder as `mapping.checkpoint` to use it. A stopped run resumes from its last
    saved state; a finished one is reused.

    Args:
        captions: Text file (one caption a line) or Parquet file (column `caption`).
        collection: Instead of a file: use the cached captions of this collection.
        backbone: The CLIP whose text tower reads the pseudo tokens.
        captioning: The captioner of the collection, and its captions per image.
        keywords: How the words to mask are found; spacy needs its en_core_web_sm model.
        masking: Mask by position, or by substring as the released code does.
        preset: Keywords and masking where they are not set: cirflow (function_words, offsets), or
            lincir as the released code (spacy, substring). All else has its defaults in any case.
    """
    if bool(captions) == bool(collection):
        raise ValueError("give either captions=FILE or collection=NAME")
    words = PRESETS[preset]
    if keywords != "preset":
        words = replace(words, keywords=keywords)
    if masking != "preset":
        words = replace(words, masking=masking)
    require_extractor(words.keywords)
    chosen = resolve_profile(profile, with_choices(settings, backbone, captioning))
    require_backbone(chosen)
    if collection:
        require_collections(chosen.root, [collection])
    require_root(chosen)
    config = LinCirConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        dropout=dropout,
        noise=noise,
        seed=seed,
        weight_decay=weight_decay,
        normalise_input=normalise_input,
    )
    texts = read_captions(captions) if captions else None
    return MappingRequest(chosen, texts, collection, config, words)
