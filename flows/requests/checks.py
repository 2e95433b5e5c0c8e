"""Checks that requests share: places, names and checkpoints. None of them loads a model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from models.editors.imported import ImportedPictures
from models.encoders.backbone_files import require_known
from models.encoders.facts import encoder_is_here
from models.engine_settings import CheckpointSettings, EngineSettings
from models.generators.questioning import PLACEHOLDERS as QUESTION_PLACEHOLDERS
from models.imported_texts import ImportedEngine
from models.instructcir.modification_texts import PLACEHOLDERS
from models.prompts.library import load_prompt
from models.retrieval.cvsi_settings import SEARCH_FAMILY
from models.retrieval.methods import GALLERY_FEATURES, VERIFIER, method, needs
from models.retrieval.systems.composed_embedding import EMBEDDER
from models.retrieval.systems.instructpix2pix import EDITED
from models.textual_inversion.concepts import read_concepts, read_phrases
from models.textual_inversion.phrases import PLACEHOLDERS as PHRASE_PLACEHOLDERS
from storage.collections.known import UnknownCollection, require_collection
from storage.exchange.sources import ExchangeError
from storage.locations.access import require_access, require_folder
from storage.locations.location import Location
from storage.tables.table import load_table
from tasks.at_hand import require_files, require_hosts_of_missing, require_mappings
from tasks.engines import token_width, why_no_pseudo_tokens
from tasks.imported_pictures import require_import
from tasks.imported_texts import imported_spec
from tasks.methods import why_not_ready
from tasks.planner import gallery_stages, plan_evaluation, query_stages
from tasks.query_sets import NO_QUERY, BenchmarkRef
from tasks.query_texts import GENERATED, file_texts
from tasks.settings import Profile
from tasks.stages.stage import Stage

NO_GALLERY: Final = "the gallery"
"""Stands for a collection where files are looked for, which are the same for each."""


def require_root(profile: Profile) -> None:
    """Refuse a root that cannot be written to.

    Raises:
        LocationError: says why, and what to set.
    """
    require_access(Location(profile.root))


def require_out(folder: Path | str) -> None:
    """Refuse a folder for results that cannot be written to, before hours of work are done.

    Raises:
        LocationError: says why, and what to set.
    """
    place = Location(str(folder))
    if place.is_local:
        require_folder(Path(place.root), "results", "out")
    else:
        require_access(place)


def out_folder(given: str, default: str) -> Path:
    """The folder for a run's results: the given one, or the default one.

    A run of a deployment has a folder of its own below the default one, which no other run
    overwrites; retries of it share the folder.
    """
    run = os.environ.get("PREFECT__FLOW_RUN_ID", "")
    return Path(given) if given else Path(default, run[-12:])  # its beginning is the time


def require_seeds(seeds: Iterable[int]) -> None:
    """Refuse seeds of drawn worlds that no generator of numbers takes.

    Raises:
        ValueError: one is below zero.
    """
    for seed in seeds:
        if seed < 0:
            raise ValueError(f"a seed is 0, 1, 2, ..., not {seed}; give another")


def require_collections(root: str, names: Iterable[str]) -> None:
    """Refuse names that no collection has.

    Raises:
        UnknownCollection: a name is unknown; the message lists the collections that exist.
    """
    for name in names:
        require_collection(Location(root), name)


def require_benchmarks(refs: Sequence[BenchmarkRef]) -> None:
    """Refuse benchmarks whose files or images are not where they should be, and one given twice.

    Raises:
        BenchmarkError: says which, and where they were looked for.
        ValueError: two have one name, under which the report could show only one of them.
    """
    titles = [ref.title for ref in refs]
    if twice := [title for title in dict.fromkeys(titles) if titles.count(title) > 1]:
        raise ValueError(
            f"benchmarks names {twice[0]} more than once: leave one out; where the folders differ, "
            "give each a `collection` of its own"
        )
    for ref in refs:
        ref.load()


def require_methods(
    profile: Profile,
    methods: Sequence[str],
    families: Sequence[str] = (SEARCH_FAMILY,),
    *,
    gallery_only: bool = False,
    trains_mapping: bool = False,
    trains_network: bool = False,
) -> None:
    """Refuse methods that lack something: a backbone, a checkpoint, a prompt.

    Args:
        profile: Engines and settings.
        methods: Their names.
        families: Benchmark families whose prompts and weights are used.
        gallery_only: Only the gallery's features are made.
        trains_mapping: LinCIR's mapping network is trained first.
        trains_network: The reformulation network is trained first.

    Raises:
        ValueError: says what is missing, and what to set.
    """
    for name in methods:
        if reason := why_not_ready(name, profile, trains_network):
            status = method(name).status
            kind = "" if status == "ready" else f" ({status})"
            raise ValueError(f"{name} does not run here{kind}: {reason}")
    require_known(profile.encoder)
    wanted = {
        need
        for name in methods
        for family in families
        for need in _needs(name, family, gallery_only)
    }
    if VERIFIER in wanted and profile.verify.reads_captions:
        wanted |= {"single_caption", "single_edit"}
    for need in sorted(wanted):
        kind, _, which = need.partition(":")
        if kind == "mapping" and not (trains_mapping and which == "lincir"):
            setting = "checkpoint" if which == "lincir" else which
            require_checkpoint(f"mapping.{setting}", profile.mapping.of(which))
    if "tokens:palavra" in wanted:
        require_checkpoint("mapping.palavra", profile.mapping.of("palavra"))
    if "tokens:oti" in wanted:
        require_words(profile)
    if wanted & {"captions", "single_caption"}:
        require_engine("captioner", profile.captioner, profile.root)
    if EDITED in wanted:
        require_editor(profile)
    if wanted & {"edits", "single_edit", "objects"}:
        require_engine("generator", profile.generator, profile.root)
    if EMBEDDER in wanted:
        require_engine("embedder", profile.embedder)
    if VERIFIER in wanted and not gallery_only:
        require_engine("verify.verifier", profile.verify.verifier)
        require_questions(profile)
    for family in families if wanted & {"edits", "single_edit"} else ():
        load_prompt(profile.prompts.edit_of(family))
    if "objects" in wanted:
        load_prompt(profile.prompts.objects)
    read = [m for m in methods if not (trains_network and _reads_network(m, families))]
    asked = [] if gallery_only else [(name, family) for name in read for family in families]
    galleries = [gallery_stages(profile, NO_GALLERY, name) for name in read]
    queries = [query_stages(profile, NO_QUERY, NO_GALLERY, *each) for each in asked]
    stages = [stage for side in (*galleries, *queries) for stage in side.values()]
    require_files(stages)
    if not trains_mapping:
        require_mappings(stages)


def _reads_network(name: str, families: Sequence[str]) -> bool:
    return any("reformulation" in _needs(name, family, False) for family in families)


def require_questions(profile: Profile) -> None:
    """Refuse prompts and a text generator that the verifier's mode `questions` cannot use.

    Raises:
        ValueError: names the setting.
    """
    chosen = profile.verify.questions
    if profile.verify.mode != "questions":
        return
    for name in filter(None, (chosen.rule, chosen.kept)):
        load_prompt(name, ("text",))
    if profile.verify.writes_questions:
        require_engine("generator", profile.generator)
        load_prompt(chosen.prompt, QUESTION_PLACEHOLDERS)


def require_words(profile: Profile) -> None:
    """Refuse pseudo tokens without readable concepts and phrases, or with tokens of no import.

    Raises:
        ValueError: names the setting.
    """
    chosen = profile.inversion
    if chosen.tokens:
        try:
            spec = load_table(Location(profile.root), "image_features", chosen.tokens).spec
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(
                f"inversion.tokens={chosen.tokens} is not the key of imported tokens: {error}"
            ) from error
        if spec["dim"] != token_width(profile.query_encoder):
            raise ValueError(
                f"inversion.tokens={chosen.tokens} holds vectors of width {spec['dim']}, the "
                f"backbone reads pseudo tokens of width {token_width(profile.query_encoder)}; "
                "import tokens that were optimised for this backbone"
            )
        return
    read_concepts(chosen.concepts)
    if chosen.phrases:
        read_phrases(chosen.phrases)
    elif chosen.oti.phrase_weight:
        require_engine("generator", profile.generator)
        load_prompt(chosen.writing.prompt, PHRASE_PLACEHOLDERS)


def _needs(name: str, family: str, gallery_only: bool) -> tuple[str, ...]:
    row = method(name)
    if not gallery_only:
        return needs(row, family)
    return tuple(need for own in row.recipe(family).gallery for need in GALLERY_FEATURES[own].needs)


def require_editor(profile: Profile) -> None:
    """Refuse an image editor whose checkpoint or import cannot be used; no weight is read.

    Raises:
        ValueError: says what is wrong; names the setting of an import or folder that is missing.
    """
    editor = profile.editor
    if isinstance(editor, ImportedPictures):
        try:
            require_import(profile.root, editor.pictures)
        except ExchangeError as error:
            raise ValueError(f"editor.pictures: {error}") from error
    elif editor.model.startswith(("/", ".", "~")):
        require_checkpoint("editor.model", editor.model)
        editor.check()


def require_engine(setting: str, engine: EngineSettings, root: str = "") -> None:
    """Refuse an engine whose checkpoint is nowhere, or whose import is a key that does not exist.

    No weight is read. Without a root no import will do: a benchmark is not asked about.

    Raises:
        ValueError: names the setting or the checkpoint.
    """
    if isinstance(engine, ImportedEngine):
        if not root:
            raise ValueError(
                f"{setting}.engine=imported holds texts of a benchmark's queries, which are not "
                "asked for here; choose an engine that writes them"
            )
        try:
            imported_spec(root, engine.texts)
        except ExchangeError as error:
            raise ValueError(f"{setting}.texts: {error}") from error
    if isinstance(engine, CheckpointSettings) and engine.model.startswith(("/", ".", "~")):
        require_checkpoint(f"{setting}.model", engine.model)
    engine.is_here()


def require_checkpoint(setting: str, place: str) -> None:
    """Refuse a checkpoint on this machine that does not exist.

    Raises:
        ValueError: names the setting.
    """
    if not place.startswith("s3://") and not Path(place).exists():
        raise ValueError(
            f"there is nothing at {setting}={place}; set {setting} to a folder or file that "
            "exists, or choose other methods (cirflow methods)"
        )


def require_backbone(profile: Profile) -> None:
    """Refuse a backbone that does not exist, or whose weights are nowhere.

    Raises:
        EncoderNotFound: names those that are like it, or says how the weights get here.
    """
    encoder_is_here(profile.encoder)


def require_pseudo_tokens(profile: Profile) -> None:
    """Refuse a backbone that does not exist or takes no pseudo tokens; its weights may be nowhere.

    Raises:
        EncoderNotFound: names those that are like it.
        ValueError: says which part of it takes none.
    """
    require_known(profile.encoder)
    if reason := why_no_pseudo_tokens(profile.query_encoder):
        raise ValueError(f"{reason}; choose another backbone, such as ViT-L-14 with tag openai")


def require_evaluation(
    profile: Profile,
    refs: Sequence[BenchmarkRef],
    methods: Sequence[str],
    *,
    trains_mapping: bool = False,
    trains_network: bool = False,
    varied: bool = False,
) -> None:
    """Refuse an evaluation that lacks something: images, a backbone, checkpoints, prompts, a root.

    Args:
        profile: Engines and settings.
        refs: The benchmarks.
        methods: Names of methods.
        trains_mapping: LinCIR's mapping network is trained first.
        trains_network: The reformulation network is trained first.
        varied: It is one of several, whose servers may be started one after the other.

    Raises:
        ValueError: says what is missing, and what to set.
        EngineUnavailable: a server that has rows to make cannot be used.
    """
    require_benchmarks(refs)
    families = tuple(dict.fromkeys(ref.load().family for ref in refs))
    require_methods(
        profile,
        methods,
        families,
        trains_mapping=trains_mapping,
        trains_network=trains_network,
    )
    for ref in refs:
        require_texts(profile, ref)
    require_root(profile)
    if not (trains_mapping or trains_network or varied):
        require_hosts_of_missing(
            stage for ref in refs for stage in _evaluating(profile, ref, methods)
        )


def _evaluating(profile: Profile, ref: BenchmarkRef, methods: Sequence[str]) -> list[Stage]:
    """The rankings of a benchmark; where its images are still to be ingested, the features."""
    try:
        return [*plan_evaluation(profile, ref, methods).rankings]
    except UnknownCollection:
        own, family = ref.collection_name, ref.load().family
        sides = [
            side
            for name in methods
            for side in (
                gallery_stages(profile, own, name),
                query_stages(profile, NO_QUERY, own, name, family),
            )
        ]
        return [stage for side in sides for stage in side.values()]


def require_texts(profile: Profile, ref: BenchmarkRef) -> None:
    """Refuse texts of queries that cannot be made or are not those of the benchmark's queries.

    Raises:
        ValueError: names the query, or the setting that lacks something.
    """
    if ref.texts.source == "file":
        file_texts(ref.texts.place, ref.load())
    if ref.texts.source == GENERATED:
        from tasks.scoring.metrics import require_targets  # brings numpy

        require_targets(ref.load())
        require_engine("instructcir.captioner", profile.instructcir.captioner)
        require_engine("instructcir.rewriter", profile.instructcir.rewriter)
        load_prompt(profile.instructcir.prompt, PLACEHOLDERS)
