"""What is asked of `score-benchmark`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from flows.form_fields import Of, Text
from flows.forms import (
    PROFILE_CAPTIONING,
    PROFILE_WORK,
    BenchmarkChoice,
    BenchmarkName,
    Captioning,
    Methods,
    Overrides,
    ProfileName,
    Split,
    Work,
    with_choices,
)
from flows.profiles import resolve_profile
from flows.requests.checks import out_folder, require_evaluation, require_out
from storage.benchmarks.registry import BENCHMARKS, protocol_options
from tasks.methods import runnable_methods
from tasks.query_sets import BenchmarkRef
from tasks.query_texts import ANNOTATED
from tasks.settings import Profile

OPTIONS: Final = Text(
    'Protocol switches of the benchmark\'s loader, e.g. {"exclude_reference": true}. '
    + " ".join(f"{name}: {', '.join(protocol_options(name))}." for name in BENCHMARKS)
)


@dataclass(frozen=True)
class ScoreRequest:
    """Methods to score on a benchmark.

    Attributes:
        profile: Engines and settings.
        ref: The benchmark.
        methods: Names of methods.
        out: Folder for the report and the submission files.
        command: The command that gives the same results again.
        retry_failed: Whether failed rows are made again.
        paraphrases: Other wordings of each query's text that are asked as well.
    """

    profile: Profile
    ref: BenchmarkRef
    methods: tuple[str, ...]
    out: Path
    command: str
    retry_failed: bool
    paraphrases: int = 0


def score_benchmark(
    benchmark: BenchmarkName,
    folder: str,
    split: Split = "val",
    methods: Methods = (),
    captioning: Captioning = PROFILE_CAPTIONING,
    work: Work = PROFILE_WORK,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    out: str = "",
    options: Annotated[dict[str, Any] | None, OPTIONS] = None,
    retry_failed: bool = False,
    texts: Annotated[str, Of(BenchmarkChoice, "texts")] = ANNOTATED,
    paraphrases: Annotated[int, Field(ge=0, le=20)] = 0,
) -> ScoreRequest:
    """Rank and score methods on a benchmark; on another CLIP: rerun-backbone.

    Args:
        benchmark: Name of the benchmark.
        folder: The benchmark's folder in its published layout, images included.
        split: One of the benchmark's own. Where targets are hidden, submission files are written.
        out: Folder for the report and the submission files; empty: out/score/BENCHMARK-SPLIT, in
            the UI a folder of the run's own below it.
        retry_failed: Retry failed rows: captions, answers of a language model that were refused.
        paraphrases: Ask each query also in so many other wordings of its text, written by the text
            generator, and report how far the scores spread.
    """
    if paraphrases and texts != ANNOTATED:
        raise ValueError(
            f"paraphrases are made of the benchmark's own texts, and texts={texts} replaces them; "
            f"leave texts={ANNOTATED}"
        )
    choice = BenchmarkChoice(name=benchmark, folder=folder, split=split, texts=texts)
    chosen = resolve_profile(profile, with_choices(settings, captioning, work))
    ref = choice.ref(chosen, options)
    asked = methods or tuple(runnable_methods(chosen))
    require_evaluation(chosen, [ref], asked)
    place = out_folder(out, f"out/score/{benchmark}-{split}")
    require_out(place)
    return ScoreRequest(
        chosen,
        ref,
        asked,
        place,
        f"cirflow run score-benchmark --profile {profile} --set benchmark={benchmark} "
        f"--set folder={folder} --set split={split}"
        + (f" --set texts={texts}" if texts != ANNOTATED else "")
        + (f" --set paraphrases={paraphrases}" if paraphrases else ""),
        retry_failed,
        paraphrases,
    )
