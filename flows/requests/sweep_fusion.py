"""What is asked of `sweep-fusion`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from flows.form_fields import OneOf
from flows.forms import (
    PROFILE_CAPTIONING,
    PROFILE_WORK,
    BenchmarkChoice,
    BenchmarkName,
    Captioning,
    Overrides,
    ProfileName,
    Split,
    Work,
    with_choices,
)
from flows.profiles import resolve_profile
from flows.requests.checks import out_folder, require_evaluation, require_out
from models.retrieval.methods import VERIFY, runnable_names
from tasks.query_sets import BenchmarkRef
from tasks.settings import Profile

SWEPT: Final = (
    "cvsi",
    "cvsi-instructcir",
    "cvsi-composed-embedding",
    *(name for name in runnable_names() if name.endswith(VERIFY)),
)
Swept = Annotated[str, OneOf("method", SWEPT)]
"""CVSI, its late fusions, or any method with a verifier."""


@dataclass(frozen=True)
class SweepRequest:
    """Weights to try on a benchmark."""

    profile: Profile
    ref: BenchmarkRef
    step: float
    method: Swept
    target_captions: int
    out: str


def sweep_fusion(
    benchmark: BenchmarkName,
    folder: str,
    split: Split = "val",
    step: Annotated[float, Field(gt=0, le=1)] = 0.1,
    captioning: Captioning = PROFILE_CAPTIONING,
    work: Work = PROFILE_WORK,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    out: str = "",
    collection: str = "",
    method: Swept = "cvsi",
    target_captions: Annotated[int, Field(ge=0, le=100)] = 0,
) -> SweepRequest:
    """Try fusion weights on a grid; the best are printed and all are kept.

    Choose weights on one split and report on another.

    Args:
        benchmark: Name of the benchmark.
        folder: The benchmark's folder in its published layout, images included.
        split: A split with public targets.
        step: Grid step of the weights, and of thresholds.
        out: Folder for the JSON file of all results, and for the charts of method=cvsi; empty:
            out/sweep, in the UI a folder of the run's own below it.
        collection: Name of the image collection; empty: BENCHMARK-SPLIT.
        method: cvsi: every alpha, beta and gamma. cvsi-instructcir, cvsi-composed-embedding:
            every weight of the other model. METHOD+verify: every rule and weight of
            `verify.fusing`, and every K.
        target_captions: Largest number of captions of a target image, all smaller ones are tried as
            well (method=cvsi); 0: the profile's own number. The paper's Figure 4c goes to 15.
    """
    choice = BenchmarkChoice(name=benchmark, folder=folder, split=split, collection=collection)
    chosen = resolve_profile(profile, with_choices(settings, captioning, work))
    ref = choice.ref(chosen)
    require_evaluation(chosen, [ref], [method])
    if not ref.load().has_targets:
        raise ValueError(f"the targets of {benchmark} {split} are not public; choose split=val")
    place = str(out_folder(out, "out/sweep"))
    require_out(place)
    return SweepRequest(chosen, ref, step, method, target_captions, place)
