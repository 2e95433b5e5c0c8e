"""Texts of a benchmark, made under a profile or imported, written in the forms of others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from storage.benchmarks.records import Benchmark
from storage.exchange.ldre import write_ldre
from storage.exchange.own_texts import own_records, write_own
from storage.exchange.programs import write_mods
from storage.exchange.sources import ExchangeError
from storage.exchange.texts import FIELDS, QueryTexts, Texts
from storage.tables.plans import IncompleteTable
from storage.tables.schemas import OK
from tasks.imported_texts import imported_texts, is_single
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, load_query_set
from tasks.settings import Profile
from tasks.stages.caption_features import CaptionFeatureStage, captions_of
from tasks.stages.captions import CaptionStage
from tasks.stages.query_features import QueryFeatureStage
from tasks.stages.rewrites import RewriteStage

Form = Literal["own", "ldre", "cirevl", "cvsi"]
METHODS: Final = ("cvsi", "cirevl")
"""Methods that together ask for every text."""


def export_texts(
    profile: Profile,
    ref: BenchmarkRef,
    form: Form,
    out: Path,
    key: str = "",
    names: Mapping[str, str] | None = None,
) -> dict[Path, int]:
    """Write the texts of a benchmark; return the files with their numbers of records.

    Args:
        profile: The models and settings that made them, and the root.
        ref: The benchmark.
        form: How to write them.
        out: The file, or a folder for one file a category.
        key: Of an import; empty for the texts that were made.
        names: Our field -> LDRE's name to write it under.

    Raises:
        ExchangeError: There are no such texts, the form has no place for them, or a file exists.
    """
    benchmark = ref.load()
    texts = imported_texts(profile.root, key) if key else made_texts(profile, ref)
    known = {query.query_id for query in benchmark.queries}
    if not set(texts.queries) <= known:
        raise ExchangeError(
            f"the import {key} is not about {benchmark.name} {benchmark.split}; name its benchmark"
        )
    if form == "own":
        _refuse_existing(out)
        return {out: write_own(own_records(texts, benchmark.queries), out)}
    _require_fields(texts, form)
    if form == "ldre":
        files: Mapping[str, Any] = write_ldre(texts, benchmark, Path(ref.root), names or {})
    else:
        files = {
            category: write_mods(texts, benchmark.queries_of(category), form == "cirevl")
            for category in benchmark.categories
        }
    return {
        _write(_place(out, category, benchmark, form), content): _count(content)
        for category, content in files.items()
    }


def made_texts(profile: Profile, ref: BenchmarkRef) -> Texts:
    """The texts that were made of a benchmark under a profile, as far as they are there.

    Raises:
        ExchangeError: None is there.
    """
    plan = plan_evaluation(profile, ref, METHODS)
    query_set = load_query_set(profile.root, ref)
    found: dict[str, dict[str, Any]] = {
        query.query_id: {"failures": {}} for query in query_set.benchmark.queries
    }
    images: dict[str, tuple[str, ...]] = {}
    for stage in plan.upstream:
        if isinstance(stage, QueryFeatureStage):
            for captions, rewrites in _behind(stage):
                _add_made(found, query_set.items, captions, rewrites)
        elif isinstance(stage, CaptionFeatureStage) and _exists(stage.captions):
            own = captions_of(stage.captions, stage.captions.planned())
            ids = query_set.image_ids
            images |= {name: tuple(own[ids[name]]) for name in ids if ids[name] in own}
    if not images and not any(
        own[name] for own in found.values() for name in FIELDS if name in own
    ):
        raise ExchangeError(
            f"no texts of {ref.collection_name} were made under this profile; run score-benchmark "
            "with cvsi or cirevl, or name an import with --texts"
        )
    queries = {key: QueryTexts(query_id=key, **own) for key, own in found.items()}
    return Texts(form="made", queries=queries, images=images)


def _behind(stage: QueryFeatureStage) -> list[tuple[CaptionStage, RewriteStage | None]]:
    """The stages of texts that a feature reads, of those that have begun."""
    rewrites = [each for each in (stage.edits, stage.objects) if each]
    pairs: list[tuple[CaptionStage, RewriteStage | None]] = [(r.captions, r) for r in rewrites]
    pairs += [(stage.captions, None)] if stage.captions else []
    return [
        (captions, own if own and _exists(own) else None)
        for captions, own in pairs
        if _exists(captions)
    ]


def _exists(stage: CaptionStage | RewriteStage) -> bool:
    try:
        stage.existing_table()
    except IncompleteTable:
        return False
    return True


def _add_made(
    found: dict[str, dict[str, Any]],
    items: Mapping[tuple[str, str], Any],
    captions: CaptionStage,
    rewrites: RewriteStage | None,
) -> None:
    said = captions_of(captions, sorted({captions.key_of(item) for item in items.values()}))
    drawn_alone = is_single(captions.sampling)
    single = rewrites is not None and rewrites.step == "edit" and rewrites.content == "first"
    for (_, query_id), item in items.items():
        own, query = said.get(captions.key_of(item), []), found[query_id]
        if own and (drawn_alone or single):
            query["single_caption"] = own[0]
        if own and not drawn_alone:
            query["captions"] = tuple(own)
        if rewrites and own:
            readings = item.texts[:1]
            asked = rewrites.requests_of(replace(item, texts=readings), own)
            _add_answers(query, rewrites, [request.key for request in asked], single)


def _add_answers(
    query: dict[str, Any], rewrites: RewriteStage, keys: Sequence[str], single: bool
) -> None:
    rows = rewrites.existing_table().read(["answer", "status", "reason"], list(keys))
    answers = {key: (answer, status, why) for key, answer, status, why in rows.iter_rows()}
    texts = [answers[key][0] if answers.get(key, ("", ""))[1] == OK else "" for key in keys]
    if rewrites.step == "objects":
        name = "objects"
    elif rewrites.content == "joined":
        name = "joined_edit"
    else:
        name = "single_edit" if single else "edits"
    query[name] = tuple(texts) if name == "edits" else texts[0]
    if not all(texts) and name != "edits":
        query["failures"][name] = answers.get(keys[0], ("", "", "it was not made"))[2]


def _require_fields(texts: Texts, form: Form) -> None:
    needed = {
        "ldre": ("captions", "edits", "single_caption", "single_edit"),
        "cirevl": ("single_caption", "single_edit"),
        "cvsi": ("captions", "joined_edit", "objects"),
    }[form]
    have = {f for own in texts.queries.values() for f in FIELDS if getattr(own, f)}
    if not have & set(needed) or (form != "ldre" and not set(needed) <= have):
        raise ExchangeError(
            f"the form {form} holds {', '.join(needed)}; these texts have "
            f"{', '.join(name for name in FIELDS if name in have) or 'none of a query'}: write the "
            "form own, or make the others first"
        )


def _place(out: Path, category: str, benchmark: Benchmark, form: Form) -> Path:
    if not category:
        return out
    name = f"cap.{category}.{benchmark.split}.json"
    return out / (name if form == "ldre" else f"{benchmark.name}_{category}_{form}_mods.json")


def _write(path: Path, content: Any) -> Path:
    _refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ExchangeError(f"{path} exists; name another file, nothing is overwritten")


def _count(content: Any) -> int:
    return len(content) if isinstance(content, list) else len(content["instruction"])
