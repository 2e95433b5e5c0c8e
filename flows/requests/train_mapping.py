"""What is asked of `train-mapping`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from flows.form_fields import DEFAULTS, Group, Of, OneOf, Values
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
from flows.requests.checks import (
    require_backbone,
    require_collections,
    require_engine,
    require_pseudo_tokens,
    require_root,
    require_words,
)
from models.settings import Settings
from models.textual_inversion.keywords import require_extractor
from models.textual_inversion.learner_settings import INVERSIONS, InversionSystem
from models.textual_inversion.settings import PRESETS, LinCirConfig, WordMasking
from models.training.settings import TrainingSettings
from tasks.settings import Profile
from tasks.training.caption_files import read_captions
from tasks.training.run_settings import RunSettings

TRAINING: Final = LinCirConfig()
LINCIR: Final = "lincir"


SYSTEM: Final = OneOf("system", (LINCIR, *INVERSIONS))
LEARNING: Final = Group(
    TrainingSettings,
    "training",
    starts=tuple((name, own.training) for name, own in INVERSIONS.items()),
)
RUN: Final = Group(RunSettings, "run")


@dataclass(frozen=True)
class InversionRequest:
    """How a network that learns from images is trained.

    Attributes:
        system: What is trained.
        network: The system's own settings.
        training: Of the training.
        run: Hardware and pace.
    """

    system: InversionSystem
    network: Settings
    training: TrainingSettings
    run: RunSettings


@dataclass(frozen=True)
class MappingRequest:
    """A mapping network to train.

    Attributes:
        profile: Backbone, and where the network is published.
        inversion: A network that learns from images; None: LinCIR, which learns from captions.
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
    inversion: InversionRequest | None = None


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
    system: Annotated[str, SYSTEM] = LINCIR,
    network: Values = DEFAULTS,
    training: Annotated[Values, LEARNING] = DEFAULTS,
    run: Annotated[Values, RUN] = DEFAULTS,
) -> MappingRequest:
    """Train a mapping network for a backbone and publish it.

    LinCIR learns from captions, the other systems from the images of a collection. Name the
    folder as `mapping.checkpoint` (LinCIR) or `mapping.SYSTEM` to use it. A
    stopped run resumes from its last saved state; a finished one is reused.

    Args:
        system: What is trained. searle distils tokens that SEARLE-OTI optimises first; palavra
            reads captions of the images, which are made where they are missing.
        network: Other systems than lincir: the system's own settings by name.
        training: Other systems than lincir: choices of training where they differ from the
            published schedule, e.g. {"max_steps": 3000}.
        run: Other systems than lincir: hardware and pace.
        captions: Text file (one caption a line) or Parquet file (column `caption`).
        collection: Instead of a file: use the cached captions of this collection.
        backbone: The CLIP whose text tower reads the pseudo tokens.
        captioning: The captioner of the collection, and its captions per image.
        keywords: How the words to mask are found; spacy needs its en_core_web_sm model.
        masking: Mask by position, or by substring as the released code does.
        preset: Keywords and masking where they are not set: cirflow (function_words, offsets), or
            lincir as the released code (spacy, substring). All else has its defaults in any case.
    """
    if system != LINCIR:
        given = {
            "captions": captions != "",
            "steps": steps != TRAINING.steps,
            "batch_size": batch_size != TRAINING.batch_size,
            "learning_rate": learning_rate != TRAINING.learning_rate,
            "dropout": dropout != TRAINING.dropout,
            "noise": noise != TRAINING.noise,
            "seed": seed != TRAINING.seed,
            "keywords": keywords != "preset",
            "masking": masking != "preset",
            "weight_decay": weight_decay != TRAINING.weight_decay,
            "normalise_input": normalise_input,
            "preset": preset != "cirflow",
        }
        if foreign := [name for name, is_given in given.items() if is_given]:
            raise ValueError(
                f"{', '.join(foreign)} belong to system=lincir; for {system} give collection=NAME, "
                'and its choices as training={"max_steps": ...} and network={...}'
            )
        chosen = resolve_profile(profile, with_choices(settings, backbone, captioning))
        return _inversion(chosen, INVERSIONS[system], collection, network, training, run)
    if network or LEARNING.beside(training) or RUN.beside(run):
        raise ValueError(
            "network, training and run belong to the systems that learn from images; LinCIR's "
            "choices are steps, batch_size, learning_rate, ..."
        )
    if bool(captions) == bool(collection):
        raise ValueError("give either captions=FILE or collection=NAME")
    words = PRESETS[preset]
    if keywords != "preset":
        words = replace(words, keywords=keywords)
    if masking != "preset":
        words = replace(words, masking=masking)
    require_extractor(words.keywords)
    chosen = resolve_profile(profile, with_choices(settings, backbone, captioning))
    require_pseudo_tokens(chosen)
    if collection:
        require_collections(chosen.root, [collection])
    require_backbone(chosen)
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


def _inversion(
    profile: Profile,
    system: InversionSystem,
    collection: str,
    network: Values,
    training: Values,
    run: Values,
) -> MappingRequest:
    """A checked request for a network that learns from images."""
    if not collection:
        raise ValueError(f"{system.name} learns from images; give collection=NAME")
    own = system.settings.given(network, "network")
    chosen = system.training.with_given(training, "training")
    where = RunSettings.given(run, "run")
    chosen.share(where.devices)
    require_pseudo_tokens(profile)
    require_collections(profile.root, [collection])
    require_backbone(profile)
    require_root(profile)
    if system.words:
        if not profile.inversion.concepts:
            raise ValueError(
                f"{system.name} reads a vocabulary of concepts; set inversion.concepts=FILE"
            )
        require_words(profile.changed(inversion=profile.inversion.changed(tokens="")))
    if system.captions:
        require_engine("captioner", profile.captioner, profile.root)
    if system.tokens and profile.inversion.tokens:
        require_words(profile)
    asked = InversionRequest(system, own, chosen, where)
    return MappingRequest(profile, None, collection, TRAINING, PRESETS["cirflow"], asked)
