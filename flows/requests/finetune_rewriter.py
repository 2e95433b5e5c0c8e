"""What is asked of `finetune-rewriter`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from flows.form_fields import DEFAULTS, Group, Of, Values
from flows.forms import Overrides, ProfileName
from flows.profiles import resolve_profile
from flows.requests.checks import require_collections, require_engine, require_root
from models.checkpoints import files_are_here
from models.engine_settings import CheckpointSettings
from models.generators.openai_server import OpenAIServerSettings
from models.imported_texts import ImportedEngine
from models.instructcir.modification_texts import PLACEHOLDERS
from models.instructcir.rewriter_settings import BaseLlm, TuningConfig
from models.prompts.library import Prompt, load_prompt
from models.protocols import AutoDtype
from models.settings import Settings
from tasks.choices import Within
from tasks.query_sets import BenchmarkRef
from tasks.settings import Profile
from tasks.training.rewriter_pairs import is_table
from tasks.training.triplet_sets import parse_triplet_set


class Teacher(Settings):
    """A stronger model behind an OpenAI-compatible server, asked once for each pair.

    Its answers are a triplets table like any other: an answer in the table is not asked for again,
    and answers that break the contract are rows with a reason. A key is read from OPENAI_API_KEY.
    """

    model: Annotated[str, Of(OpenAIServerSettings, "model")]
    base_url: Annotated[str, Of(OpenAIServerSettings, "base_url")]
    identity: Annotated[str, Of(OpenAIServerSettings, "identity")] = ""
    api: Annotated[Literal["chat", "completions"], Of(OpenAIServerSettings, "api")] = "chat"
    collections: tuple[str, ...] = Field(min_length=1)
    """Ingested collections; the teacher is asked about pairs of their captions."""
    within: Within = "meta_class"
    """Pair images of one class, or any two of a collection."""
    count: int = Field(3_000, ge=1)
    """Pairs asked about."""
    seed: int = 0
    """Seed of the sample of pairs."""


class BenchmarkTexts(Settings):
    """Benchmarks with annotated training texts to learn; the adapter is then not zero-shot."""

    cirr: str = ""
    """Folder of CIRR with the images of its training split."""
    fashioniq: str = ""
    """Folder of FashionIQ with the images of its training split."""


NO_BENCHMARK = BenchmarkTexts()


@dataclass(frozen=True)
class TuningRequest:
    """A rewriter to tune.

    Attributes:
        profile: Engines and settings.
        prompt: Of the modification text.
        pairs: File of pairs, or the reference to a generated set; empty: none.
        teacher: A model that answers first.
        benchmarks: Benchmarks with training texts to learn too.
        replay: File of other tasks to rehearse; empty: none.
        base: The model to tune.
        config: Hyper-parameters.
        merged: Folder for the whole model; empty: none.
    """

    profile: Profile
    prompt: Prompt
    pairs: str
    teacher: Teacher | None
    benchmarks: tuple[BenchmarkRef, ...]
    replay: str
    base: BaseLlm
    config: TuningConfig
    merged: str


def finetune_rewriter(
    pairs: str = "",
    teacher: Teacher | None = None,
    gt: BenchmarkTexts = NO_BENCHMARK,
    replay: str = "",
    base: str = "",
    revision: Annotated[str, Of(BaseLlm, "revision")] = "",
    tuning: Annotated[Values, Group(TuningConfig, "tuning")] = DEFAULTS,
    device: Annotated[str, Of(BaseLlm, "device")] = "auto",
    dtype: Annotated[AutoDtype, Of(BaseLlm, "dtype")] = "auto",
    merged: str = "",
    profile: ProfileName = "tiny",
    settings: Overrides = None,
) -> TuningRequest:
    """Tune the profile's rewriter with LoRA and publish the adapter.

    Name its folder as `instructcir.rewriter.adapter` to use it in process; or serve it (`vllm serve
    BASE --enable-lora --max-lora-rank 16 --lora-modules NAME=FOLDER`) and name it as
    `instructcir.rewriter.model`, with the folder as `adapter`, so that tables know the model that
    answered. Use it for modification texts only: without `replay`, the model's other tasks are
    likely lost (in a trial with a small model, edits fell from 0.93 right to 0.04; with replay they
    did not). A stopped run resumes from its last saved state; a finished one is reused.

    Args:
        pairs: JSON lines or Parquet with `caption_a`, `caption_b`, `text` or `prompt`, `answer`;
            or the `triplets.json` of a generated set.
        teacher: A model that answers first, and the collections that it is asked about.
        gt: Benchmarks with training texts to learn too ("33B-GT" in the paper). Everything
            made with the adapter is then labelled as not zero-shot.
        replay: A file like `pairs` with other tasks to rehearse, each prompt with its answer.
        base: Directory or hub id of the model to tune; empty: the profile's rewriter.
        tuning: Rank, learning rate, epochs and so on.
        merged: Folder for the whole model with the adapter merged in, for servers without LoRA.
    """
    chosen = resolve_profile(profile, settings)
    named = {name: folder for name, folder in gt.model_dump().items() if folder}
    if not (pairs or teacher or named):
        raise ValueError("nothing to learn from; give pairs=FILE, a teacher, or gt")
    for what, file in (("pairs", pairs), ("replay", replay)):
        if file and not Path(file).is_file():
            raise ValueError(f"{what}={file}: no such file")
    if pairs and not is_table(pairs):
        try:
            parse_triplet_set(pairs)
        except ValueError as error:
            raise ValueError(f"{error}; or give pairs in .jsonl or .parquet") from error
    if teacher is not None:
        require_collections(chosen.root, teacher.collections)
    refs = tuple(
        BenchmarkRef(
            name=name, root=folder, split="train", allow_missing=chosen.allow_missing_images
        )
        for name, folder in named.items()
    )
    for ref in refs:
        ref.load()
    if named or teacher is not None:
        require_engine("instructcir.captioner", chosen.instructcir.captioner)
    prompt = load_prompt(chosen.instructcir.prompt, PLACEHOLDERS)
    model = base_model(chosen, base, revision, device, dtype)
    files_are_here(model.model, model.revision or None)
    config = TuningConfig.given(tuning, "tuning")
    require_root(chosen)
    return TuningRequest(chosen, prompt, pairs, teacher, refs, replay, model, config, merged)


def base_model(
    profile: Profile, base: str, revision: str, device: str, dtype: AutoDtype
) -> BaseLlm:
    """The model to tune, asked in the form in which the profile asks its rewriter."""
    rewriter = profile.instructcir.rewriter
    own = rewriter.revision if isinstance(rewriter, CheckpointSettings) else ""
    raw = rewriter.engine == "openai" and rewriter.api == "completions"
    if not base and isinstance(rewriter, ImportedEngine):
        raise ValueError(
            "instructcir.rewriter.engine=imported names texts and not a model: set base to the "
            "model to tune"
        )
    named = "" if isinstance(rewriter, ImportedEngine) else rewriter.model
    return BaseLlm(
        model=base or named,
        revision=revision if base else revision or own,
        chat="never" if raw else "auto",
        device=device,
        dtype=dtype,
    )
